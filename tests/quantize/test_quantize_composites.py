"""Residual and product quantizers: their sums and groups, prefixes, dropout, and what they refuse."""

from __future__ import annotations

import copy
import itertools
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from smalti.config.quantizer import BinaryConfig, ResidualConfig, ScalarConfig, VectorConfig
from smalti.errors import CodeRangeError, ConfigError
from smalti.quantize import (
    BinaryQuantizer,
    ProductQuantizer,
    Quantizer,
    ResidualQuantizer,
    ScalarQuantizer,
    SimVectorQuantizer,
    VectorQuantizer,
    build_quantizer,
)


def latents(seed: int = 0, *, batch: int = 4, channels: int = 6) -> Tensor:
    return torch.randn(batch, channels, 4, 5, generator=torch.Generator().manual_seed(seed))


def vectors(**options: Any) -> VectorQuantizer:
    return VectorQuantizer(**{"codes": 24, "dimension": 6, "update": "gradient", "dead_code_threshold": 0.0} | options)


def started(quantizer: Quantizer) -> Quantizer:
    for seed in range(2):
        quantizer(latents(seed))
    return quantizer


def test_a_residual_is_the_sum_of_its_stages() -> None:
    stages = [vectors() for _ in range(3)]
    quantizer = started(ResidualQuantizer(stages)).eval()
    z = latents(9)
    result, left, values, loss = quantizer(z), z, torch.zeros_like(z), torch.zeros(())
    for plane, stage in enumerate(stages):
        part = stage(left)
        assert torch.equal(result.codes[:, plane : plane + 1], part.codes)
        left, values, loss = left - part.values, values + part.values, loss + part.loss
    torch.testing.assert_close(result.values, values)
    torch.testing.assert_close(result.loss, loss)


def test_every_stage_is_committed_to() -> None:
    """Each of the stages' commitment terms has the gradient 2 beta r / size at the latent."""
    quantizer = started(ResidualQuantizer([vectors(commitment=0.5) for _ in range(3)])).eval()
    z = latents(9).requires_grad_()
    result = quantizer(z)
    result.loss.backward()
    expected = torch.zeros_like(z)
    for depth in (1, 2, 3):
        expected += 2 * 0.5 * (z - quantizer.decode_prefix(result.codes, depth)).detach() / z.numel()
    torch.testing.assert_close(z.grad, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("stage", "channels", "factor"),
    [
        (lambda: ScalarQuantizer((5, 5, 5)), 3, 4),
        (lambda: ScalarQuantizer((8, 8, 8)), 3, 7),
        (lambda: BinaryQuantizer(6, spherical=False, entropy=0.0), 6, 2),
    ],
)
def test_fixed_codes_get_finer_with_every_stage(stage: Any, channels: int, factor: int) -> None:
    quantizer = ResidualQuantizer([stage() for _ in range(4)])
    z = latents(channels=channels).clamp(-2, 2)
    target = quantizer.bound_rows(quantizer._rows(z))
    codes = quantizer.encode(z)
    errors = [
        float((quantizer._rows(quantizer.decode_prefix(codes, depth)) - target).abs().max()) for depth in range(1, 5)
    ]
    assert errors[0] <= 1.001
    for coarse, fine in itertools.pairwise(errors):
        assert fine < coarse / factor * 1.3


def test_a_prefix_decodes_to_the_sum_of_its_stages() -> None:
    quantizer = started(ResidualQuantizer([vectors() for _ in range(3)]))
    codes = quantizer.encode(latents(5))
    assert torch.equal(quantizer.decode_prefix(codes, 3), quantizer.decode(codes))
    errors = [float((quantizer.decode_prefix(codes, depth) - latents(5)).square().mean()) for depth in (1, 2, 3)]
    assert errors == sorted(errors, reverse=True)
    assert torch.equal(quantizer.decode_prefix(codes[:, :2], 2), quantizer.decode_prefix(codes, 2))
    for depth in (0, 4):
        with pytest.raises(ConfigError, match=f"depth is {depth}, but must be from 1 to 3"):
            quantizer.decode_prefix(codes, depth)
    with pytest.raises(CodeRangeError, match="codes have the shape"):
        quantizer.decode_prefix(codes[:, :1], 2)
    with pytest.raises(CodeRangeError, match="codes have 6 planes, but this model writes 3"):
        quantizer.decode_prefix(torch.cat([codes, codes], dim=1), 2)
    with pytest.raises(CodeRangeError, match="plane 1 holds code 24"):
        quantizer.decode_prefix(torch.full_like(codes, 24) * torch.tensor([0, 1, 0]).view(1, 3, 1, 1), 2)


def test_dropout_hands_on_prefixes_of_whole_examples() -> None:
    quantizer = started(ResidualQuantizer([vectors() for _ in range(4)], dropout=0.5))
    z = latents(3, batch=400)
    before = copy.deepcopy(quantizer)
    result = quantizer(z)
    prefixes = torch.stack([before.decode_prefix(result.codes, depth) for depth in (1, 2, 3, 4)])
    used = (prefixes - result.values).abs().amax(dim=(2, 3, 4)).argmin(dim=0)
    torch.testing.assert_close(prefixes[used, torch.arange(400)], result.values, rtol=1e-5, atol=1e-5)
    shares = torch.bincount(used, minlength=4) / 400
    torch.testing.assert_close(shares, torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2]), rtol=0, atol=0.08)
    assert torch.equal(result.codes, before.encode(z)), "the codes are whole"
    assert torch.equal(quantizer.eval()(z).values, quantizer.decode(quantizer.encode(z)))


def test_dropout_draws_the_same_again_from_the_same_step() -> None:
    quantizer = started(ResidualQuantizer([vectors() for _ in range(4)], dropout=0.5))
    twin = ResidualQuantizer([vectors() for _ in range(4)], dropout=0.5)
    twin.load_state_dict(quantizer.state_dict())
    torch.manual_seed(99)
    first = quantizer(latents(8, batch=64)).values
    assert torch.equal(twin(latents(8, batch=64)).values, first)
    assert not torch.equal(quantizer(latents(8, batch=64)).values, first)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_no_stage_begins_with_what_an_earlier_one_left_nothing_of(update: str) -> None:
    quantizer = ResidualQuantizer([vectors(update=update) for _ in range(3)])
    quantizer(latents(0, batch=20))
    for stage in quantizer.layers:
        assert float((stage.codebook.detach().abs().amax(dim=1) > 1e-3).float().mean()) > 0.8


def test_a_shared_codebook_is_stored_once() -> None:
    shared = ResidualQuantizer(vectors(), depth=3)
    assert shared.codebook_sizes == (24, 24, 24)
    assert [name for name, _ in shared.named_parameters()] == ["layers.0.codebook"]
    started(shared)
    codes = shared.encode(latents(4))
    expected = sum(shared.layers[0].decode(codes[:, plane : plane + 1]) for plane in range(3))
    torch.testing.assert_close(shared.decode(codes), expected)
    own = build_quantizer(ResidualConfig(layer=VectorConfig(codes=24, dimension=6), depth=3))
    assert sum("codebook" in name for name in own.state_dict()) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResidualQuantizer([]), "needs its stages"),
        (lambda: ResidualQuantizer(VectorQuantizer(8, 4)), "needs its stages"),
        (lambda: ResidualQuantizer([VectorQuantizer(8, 4)], 2), "depth is 2, but there are 1 quantizers"),
        (lambda: ResidualQuantizer([VectorQuantizer(8, 4), VectorQuantizer(8, 5)]), "the same channels each"),
        (lambda: ResidualQuantizer(ProductQuantizer([VectorQuantizer(8, 4)] * 2), 2), "one code plane"),
        (lambda: ResidualQuantizer(VectorQuantizer(8, 4), 2, dropout=1.5), "dropout is 1.5"),
        (lambda: ProductQuantizer([]), "needs at least one group"),
        (lambda: ResidualConfig(layer=VectorConfig(normalize=True)), "set layer.normalize to false, or give"),
        (lambda: ResidualConfig(layer=ScalarConfig(levels=(2, 5))), "layer.levels hold a 2"),
        (lambda: ResidualConfig(depth=0), "depth is 0"),
        (lambda: ResidualConfig(layer=ResidualConfig()), "layer is ResidualConfig"),
    ],
)
def test_what_does_not_fit_together_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make()


def test_a_product_is_its_groups_side_by_side() -> None:
    groups = [vectors(dimension=2), vectors(dimension=4, codes=9)]
    quantizer = started(ProductQuantizer(groups)).eval()
    assert quantizer.codebook_sizes == (24, 9)
    z = latents(9)
    result = quantizer(z)
    a, b = groups[0](z[:, :2]), groups[1](z[:, 2:])
    assert torch.equal(result.codes, torch.cat([a.codes, b.codes], dim=1))
    assert torch.equal(result.values, torch.cat([a.values, b.values], dim=1))
    torch.testing.assert_close(result.loss, (a.loss + b.loss) / 2)


def test_a_product_may_hold_unlike_quantizers_of_several_planes() -> None:
    quantizer = ProductQuantizer(
        [ResidualQuantizer([vectors(dimension=3) for _ in range(2)]), BinaryQuantizer(2), SimVectorQuantizer(8, 1)]
    )
    assert quantizer.codebook_sizes == (24, 24, 4, 8)
    started(quantizer).eval()
    result = quantizer(latents(2))
    assert torch.equal(quantizer.decode(result.codes), result.values)


def test_the_names_in_a_table_are_those_of_the_configurations() -> None:
    assert build_quantizer(BinaryConfig(bits=3)).codebook_sizes == (8,)
    assert isinstance(build_quantizer(ScalarConfig()), ScalarQuantizer)
