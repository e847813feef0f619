"""Codes placed before the first step: used at once, kept by the first batch, the same every time."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from variants import VARIANTS, latents, vector_layer

from smalti.config.quantizer import QuantizerConfig, ResidualConfig, VectorConfig
from smalti.errors import ConfigError
from smalti.quantize import Quantizer, VectorQuantizer, build_quantizer


def those(wanted: Callable[[QuantizerConfig], object]) -> pytest.MarkDecorator:
    chosen = {name: config for name, config in VARIANTS.items() if wanted(config)}
    return pytest.mark.parametrize("config", chosen.values(), ids=chosen)


def projects(config: QuantizerConfig) -> bool:
    layer = vector_layer(config)
    return layer is not None and layer.projection is not None


def shares(config: QuantizerConfig) -> bool:
    return isinstance(config, ResidualConfig) and config.shared


every = those(lambda config: True)
placed = those(vector_layer)


def fitted(config: QuantizerConfig, *, seed: int = 0, per_step: int = 60) -> tuple[Quantizer, Tensor]:
    torch.manual_seed(0)
    quantizer, z = build_quantizer(config), many(config, seed)
    quantizer.fit(z, latents_per_step=per_step)
    return quantizer, z


def many(config: QuantizerConfig, seed: int = 0) -> Tensor:
    return latents(config, seed, batch=30, height=8, width=8)


def books(quantizer: Quantizer) -> list[VectorQuantizer]:
    return [module for module in quantizer.modules() if isinstance(module, VectorQuantizer)]


@placed
def test_all_codes_are_used(config: QuantizerConfig) -> None:
    quantizer, z = fitted(config)
    codes = quantizer.encode(z)
    for plane, size in list(enumerate(quantizer.codebook_sizes))[: 1 if shares(config) else None]:
        assert len(codes[:, plane].unique()) >= 0.9 * size, plane


@those(lambda config: vector_layer(config) and not projects(config))  # a map that has not learned yet loses most
def test_the_error_is_smaller_than_that_of_codes_from_the_first_batch(config: QuantizerConfig) -> None:
    quantizer, z = fitted(config)
    torch.manual_seed(0)
    fresh = build_quantizer(config)
    fresh(z[:2])
    errors = []
    for each in (quantizer, fresh):
        bounded = torch.nn.functional.normalize(z, dim=1) if vector_layer(config).normalize else z  # type: ignore[union-attr]
        errors.append(float((each.eval().decode(each.encode(z)) - bounded).square().mean()))
    assert errors[0] < errors[1]


@placed
def test_the_first_batch_does_not_begin_anew(config: QuantizerConfig) -> None:
    quantizer, z = fitted(config)
    before = [book.codebook.detach().clone() for book in books(quantizer)]
    for book in books(quantizer):
        book.dead_code_threshold = 0.0  # which is another thing than beginning anew
    quantizer.train()(z[:2])
    for book, codebook in zip(books(quantizer), before, strict=True):
        moved = (book.codebook.detach() - codebook).norm(dim=1)
        assert float(moved.max()) < 0.5 * float(codebook.norm(dim=1).mean())
        if book.update == "gradient":
            assert not moved.any()
        else:
            # The statistics weigh as much as those of training do: one batch of many.
            assert 0 < float(moved.mean()) < 0.05 * float(codebook.norm(dim=1).mean())


@those(lambda config: vector_layer(config) and not shares(config))  # there, later stages use few codes of the first's
def test_nothing_is_revived_in_the_first_steps(config: QuantizerConfig) -> None:
    quantizer, z = fitted(config, per_step=128)
    twin = copy.deepcopy(quantizer)
    for book in books(twin):
        book.dead_code_threshold = 0.0
    for each in (quantizer, twin):
        each.train()(z[:2])
    for ours, theirs in zip(books(quantizer), books(twin), strict=True):
        changed = (ours.codebook != theirs.codebook).any(dim=1)
        few = theirs.used < 0.05 * 128 / len(changed)
        assert not (changed & ~few).any()
        assert int(changed.sum()) <= 0.1 * len(changed)


@those(lambda config: isinstance(config, VectorConfig))
def test_use_and_sums_agree_with_the_codes(config: QuantizerConfig) -> None:
    quantizer, z = fitted(config, per_step=60)
    (book,) = books(quantizer)
    counts = torch.bincount(quantizer.encode(z).flatten(), minlength=24)
    torch.testing.assert_close(book.used, counts * (60 / z[:, 0].numel()))
    if book.update == "ema":
        torch.testing.assert_close(book.sums, book.codebook * book.used[:, None])
    assert book.step_number() == int(book.steps) == 1


@every
def test_fitting_is_the_same_every_time_and_draws_nothing(config: QuantizerConfig) -> None:
    torch.manual_seed(7)
    quantizer = build_quantizer(config)
    twin, z = copy.deepcopy(quantizer), many(config)
    before = torch.random.get_rng_state()
    for each in (quantizer, twin):
        each.fit(z, latents_per_step=60)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name]), name
        assert bool(tensor.isfinite().all()), name
    assert all(not parameter.grad_fn for parameter in quantizer.parameters())


@those(lambda config: not vector_layer(config))
def test_codes_with_places_of_their_own_stay_there(config: QuantizerConfig) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(config)
    before = copy.deepcopy(quantizer.state_dict())
    quantizer.fit(latents(config, batch=1, height=1, width=1), latents_per_step=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantizer.state_dict().items())


@placed
def test_fewer_latents_than_codes_is_said(config: QuantizerConfig) -> None:
    with pytest.raises(
        ConfigError, match="the training images have 15, the codebook 24; use more or larger images, or fewer codes"
    ):
        build_quantizer(config).fit(latents(config, batch=1), latents_per_step=15)


@every
def test_another_number_of_channels_is_refused(config: QuantizerConfig) -> None:
    with pytest.raises(ConfigError, match="channels"):
        build_quantizer(config).fit(torch.zeros(1, config.dimension + 1, 9, 9), latents_per_step=1)


def test_a_fitted_quantizer_trains_on_after_saving() -> None:
    config = ResidualConfig(layer=VectorConfig(codes=8, dimension=4), depth=2)
    quantizer, z = fitted(config)
    other = build_quantizer(config)
    other.load_state_dict(copy.deepcopy(quantizer.state_dict()))
    for each in (quantizer, other):
        each.train()(z[:2])
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_stages_are_placed_for_what_the_ones_before_left() -> None:
    quantizer, z = fitted(ResidualConfig(layer=VectorConfig(codes=24, dimension=6), depth=3))
    rows = z.permute(0, 2, 3, 1).flatten(0, 2)
    first, second, _ = books(quantizer)
    left = rows - first.codebook[torch.cdist(rows, first.codebook).argmin(dim=1)]
    codes = torch.cdist(left, second.codebook).argmin(dim=1)
    assert torch.equal(quantizer.encode(z)[:, 1].flatten(), codes)
    errors = [float((quantizer.decode_prefix(quantizer.encode(z), depth) - z).square().mean()) for depth in (1, 2, 3)]
    assert errors[0] > 1.3 * errors[1] > 1.3 * 1.3 * errors[2]
