"""How codes are counted, and what the doctor says of each illness."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor
from variants import VARIANTS, latents

from smalti.config.parse import paths
from smalti.config.quantizer import ProductConfig, QuantizerConfig, ScalarConfig, VectorConfig
from smalti.config.run import RunConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.quantize import ProductQuantizer, ScalarQuantizer, VectorQuantizer, build_quantizer
from smalti.quantize.base import Quantized
from smalti.quantize.health import FADED, MATURE, UsageMonitor, diagnose, norm_ratio


def drawn(codebook_sizes: tuple[int, ...], seed: int, *, batch: int = 4, side: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    # The first codes more often than the last ones.
    planes = [
        (torch.rand(batch, side, side, generator=generator).square() * size).long().clamp_max(size - 1)
        for size in codebook_sizes
    ]
    return torch.stack(planes, dim=1)


@pytest.mark.parametrize("codebook_sizes", [(7,), (5, 5), (6, 2, 9)])
@pytest.mark.parametrize("half_life", [3, 50])
def test_the_figures_are_those_of_numpy(codebook_sizes: tuple[int, ...], half_life: int) -> None:
    monitor = UsageMonitor(codebook_sizes, half_life=half_life)
    counts = [np.zeros(size) for size in codebook_sizes]
    for step in range(6):
        codes = drawn(codebook_sizes, step)
        monitor.update(codes, batch=4)
        for plane, size in enumerate(codebook_sizes):
            counts[plane] *= 0.5 ** (4 / half_life)
            counts[plane] += np.bincount(codes[:, plane].flatten().numpy(), minlength=size)
    for plane, count in enumerate(counts):
        np.testing.assert_allclose(monitor.counts[plane, : len(count)].numpy(), count, rtol=1e-5)
        assert not monitor.counts[plane, len(count) :].any()
    figures = monitor.figures()
    shares = [count[count > 0] / count.sum() for count in counts]
    expected = np.mean([math.exp(-(share * np.log(share)).sum()) for share in shares])
    assert float(figures["perplexity"]) == pytest.approx(expected, rel=1e-5)
    seen = [int((count > FADED).sum()) for count in counts]
    assert float(figures["used"]) == pytest.approx(sum(seen) / sum(codebook_sizes))
    dead = sum(
        size - alive
        for size, alive, count in zip(codebook_sizes, seen, counts, strict=True)
        if count.sum() >= MATURE * size
    )
    assert float(figures["dead"]) == dead
    assert monitor.mature() == all(
        count.sum() >= MATURE * size for size, count in zip(codebook_sizes, counts, strict=True)
    )


def test_even_use_is_a_perplexity_of_all_codes() -> None:
    monitor = UsageMonitor((8, 8), half_life=100)
    monitor.update(torch.arange(8).repeat(2).view(1, 1, 4, 4).expand(1, 2, 4, 4), batch=1)
    figures = {name: float(value) for name, value in monitor.figures().items()}
    assert figures == pytest.approx({"perplexity": 8.0, "used": 1.0, "dead": 0.0})


def test_before_anything_was_counted() -> None:
    figures = {name: float(value) for name, value in UsageMonitor((8,), half_life=100).figures().items()}
    assert figures == {"perplexity": 1.0, "used": 0.0, "dead": 0.0}


def test_a_code_is_dead_four_half_lives_after_its_last_use_and_never_before_enough_was_counted() -> None:
    monitor = UsageMonitor((4,), half_life=10)
    monitor.update(torch.tensor([3]).view(1, 1, 1, 1), batch=1)
    others = torch.tensor([0, 1, 2]).repeat(MATURE).view(1, 1, 3, MATURE)
    monitor.update(others, batch=10)
    assert float(monitor.figures()["dead"]) == 0
    for _ in range(3):
        monitor.update(others, batch=10)
    assert float(monitor.figures()["dead"]) == 0, "0.5^4 of a count is left"
    monitor.update(others, batch=10)
    figures = monitor.figures()
    assert (float(figures["dead"]), float(figures["used"])) == (1, 0.75)
    monitor.update(torch.full((1, 1, 1, 1), 3), batch=1)
    assert float(monitor.figures()["dead"]) == 0
    few = UsageMonitor((4,), half_life=10**6)
    few.update(torch.zeros(1, 1, 1, 4 * MATURE - 1, dtype=torch.int64), batch=1)
    assert (float(few.figures()["dead"]), few.mature()) == (0, False)
    few.update(torch.zeros(1, 1, 1, 1, dtype=torch.int64), batch=0)
    assert (float(few.figures()["dead"]), few.mature()) == (3, True)


def test_counts_are_saved_with_the_module() -> None:
    monitor, other = (UsageMonitor((6, 2), half_life=10) for _ in range(2))
    monitor.update(drawn((6, 2), 0), batch=4)
    other.load_state_dict(monitor.state_dict())
    assert other.figures() == monitor.figures()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
def test_the_ratio_of_sizes_is_that_of_the_root_mean_squares(scale: float) -> None:
    z, values = torch.randn(2, 3, 4, 5) * scale, torch.randn(2, 3, 4, 5)
    expected = np.sqrt((z.double().numpy() ** 2).mean() / (values.double().numpy() ** 2).mean())
    found = norm_ratio(z, Quantized(values, torch.zeros(2, 1, 4, 5, dtype=torch.int64), torch.zeros(())))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_codebook_of_zeros_has_a_finite_ratio() -> None:
    nothing = Quantized(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.int64), torch.zeros(()))
    assert math.isfinite(float(norm_ratio(torch.zeros(1, 2, 1, 1), nothing)))


def test_padding_is_neither_counted_nor_measured() -> None:
    mask = torch.arange(7) < torch.tensor([7, 2, 0])[:, None]
    codes = drawn((6, 9), 0, batch=3, side=7)[:, :, 0]
    padded, compact = UsageMonitor((6, 9), half_life=10), UsageMonitor((6, 9), half_life=10)
    padded.update(codes.masked_fill(~mask[:, None], 0), batch=3, mask=mask)
    compact.update(codes.mT[mask].T[None], batch=3)
    assert torch.equal(padded.counts, compact.counts)
    z, values = torch.randn(3, 4, 7), torch.randn(3, 4, 7)
    result = Quantized(values, codes, torch.zeros(()))
    expected = z.mT[mask].square().mean().sqrt() / values.mT[mask].square().mean().sqrt()
    torch.testing.assert_close(norm_ratio(z.masked_fill(~mask[:, None], 99.0), result, mask=mask), expected)


HEALTHY = {"perplexity": 300.0, "used": 0.95, "ratio": 1.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"perplexity": 8.0}, "the codebook has collapsed: 8.0 of 512 codes are used as if evenly; try"),
        ({"perplexity": 1.0, "used": 0.002, "ratio": 50.0}, "the codebook has collapsed: "),
        ({"ratio": 5.0}, "the encoder's latents grow away from the codebook: they have 5 times its size; try a larger"),
        ({"ratio": 0.2}, "the encoder's latents shrink below the codebook: they have 0.2 times its size; try"),
        ({"used": 0.3}, "many codes are dead: 70 %; try quantizer.dead_code_threshold=0.25"),
        ({"perplexity": 100.0}, "few codes do most of the work: 100 of 512 as if evenly; try"),
    ],
)
def test_each_illness_has_its_line(change: dict[str, float], words: str) -> None:
    advice = diagnose(512, **HEALTHY | change)
    assert advice is not None
    assert advice.startswith(words)
    assert "; try" in advice
    # The loop tells one advice from another by what stands before the colon.
    assert not any(character.isdigit() for character in advice.partition(":")[0])


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_no_advice_names_a_setting_that_is_not_there(config: QuantizerConfig) -> None:
    known = set(paths(RunConfig(model=VQVAEConfig(quantizer=config))))
    for change in ({"perplexity": 1.0}, {"ratio": 5.0}, {"used": 0.3}, {"perplexity": 100.0}):
        advice = diagnose(512, **HEALTHY | change, config=config)
        assert advice is not None
        assert {f"model.{name}" for name in re.findall(r"quantizer[.\w]+", advice)} <= known


@pytest.mark.parametrize("codes", [2, 3, 4, 8, 512, 2**20])
def test_the_healthy_are_left_alone(codes: int) -> None:
    for share in (0.3, 0.8, 1.0):
        perplexity = max(share * codes, min(2.0, 0.8 * codes))
        assert diagnose(codes, perplexity=perplexity, used=0.9, ratio=1.0) is None
        assert diagnose(codes, perplexity=perplexity, used=0.9, ratio=None) is None
    assert (diagnose(codes, perplexity=1.0, used=1 / codes) or "").startswith("the codebook has collapsed")


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_sizes_are_compared_where_codes_lie_where_the_latents_are(config: QuantizerConfig) -> None:
    """For latents far larger than any codebook: a codebook that keeps up is as large, and fixed places are not."""
    quantizer = build_quantizer(config)
    z = 1000 * latents(config, height=9, width=9)
    for _ in range(3):
        result = quantizer(z)
    near = 0.5 < float(norm_ratio(z, result)) < 2
    layer = getattr(config, "layer", config)
    if layer.name == "simvq":  # it comes after, by gradient
        assert quantizer.codes_in_latent_space
    elif not (isinstance(layer, VectorConfig) and layer.projection):
        assert quantizer.codes_in_latent_space == near


def test_one_layer_that_does_not_compare_is_enough() -> None:
    assert ProductQuantizer([VectorQuantizer(4, 2), VectorQuantizer(4, 2)]).codes_in_latent_space
    assert not ProductQuantizer([VectorQuantizer(4, 2), ScalarQuantizer((5, 5))]).codes_in_latent_space
    assert not build_quantizer(ProductConfig(layer=ScalarConfig())).codes_in_latent_space
