"""Laws that every architecture keeps: a new row of the table is tested without a line being added here."""

from __future__ import annotations

import copy
import dataclasses
import re
import typing
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from networks import strong
from torch import Tensor, nn

from smalti.config.gan import GANConfig, GANNetworkConfig
from smalti.errors import ConfigError
from smalti.models.gan.base import ARCHITECTURES, Discriminator, Generator

LATENT, CLASSES, SHAPE = 7, 5, (3, 16, 20)
each_row = pytest.mark.parametrize("name", ARCHITECTURES)
with_and_without_labels = pytest.mark.parametrize("classes", [0, CLASSES])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def small(name: str) -> GANConfig:
    """The row's own settings, at a width of 16."""
    kinds = {kind().architecture: kind for kind in typing.get_args(GANNetworkConfig)}
    widths = {field.name: 16 for field in dataclasses.fields(kinds[name]) if field.name.endswith("width")}
    return GANConfig(latent=LATENT, network=kinds[name](**widths))


def generator(name: str, classes: int = 0, shape: tuple[int, int, int] = SHAPE) -> Generator:
    return strong(Generator(small(name), shape, classes))


def discriminator(name: str, classes: int = 0, shape: tuple[int, int, int] = SHAPE) -> Discriminator:
    model = strong(Discriminator(small(name), shape, classes))
    for _ in range(10):  # what follows the weights, as power iterations do, gets there
        model(pictures(1, shape), some(classes, 1))
    return model


def some(classes: int, count: int = 4) -> Tensor | None:
    return torch.arange(count) % classes if classes else None


def pictures(count: int = 4, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Tensor:
    x = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last)


def bf16() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def test_the_table_has_a_row_for_every_kind_of_settings() -> None:
    assert sorted(kind().architecture for kind in typing.get_args(GANNetworkConfig)) == sorted(ARCHITECTURES)


@each_row
@with_and_without_labels
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 40), (4, 48, 32)])
def test_shapes_and_types(name: str, classes: int, shape: tuple[int, int, int]) -> None:
    make, judge = generator(name, classes, shape), discriminator(name, classes, shape)
    images = make(torch.randn(2, LATENT), some(classes, 2))
    assert (images.shape, images.dtype) == ((2, *shape), torch.float32)
    logits = judge(images, some(classes, 2))
    assert (logits.shape, logits.dtype) == ((2,), torch.float32)
    with bf16():
        images = make(torch.randn(2, LATENT), some(classes, 2))
        logits = judge(images, some(classes, 2))
    assert (images.dtype, logits.dtype) == (torch.float32, torch.float32)
    assert torch.isfinite(images).all()
    assert torch.isfinite(logits).all()


@each_row
@settings(max_examples=10)
@given(
    doublings=st.integers(2, 4),
    shorter=st.integers(4, 7),
    more=st.integers(0, 4),
    lying=st.booleans(),
    channels=st.sampled_from([1, 3, 4]),
    classes=st.sampled_from([0, 3]),
)
@example(6, 4, 0, False, 3, 0)  # 256x256
@example(5, 7, 0, False, 1, 3)  # 224x224
def test_images_of_every_size_that_doubling_reaches(
    name: str, doublings: int, shorter: int, more: int, lying: bool, channels: int, classes: int
) -> None:
    grid = (shorter, shorter + more) if lying else (shorter + more, shorter)
    shape = (channels, grid[0] << doublings, grid[1] << doublings)
    images = generator(name, classes, shape)(torch.randn(2, LATENT), some(classes, 2))
    assert (images.shape, images.dtype) == ((2, *shape), torch.float32)
    assert Discriminator(small(name), shape, classes)(images, some(classes, 2)).shape == (2,)


@each_row
@pytest.mark.parametrize("network", [Generator, Discriminator])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (12, 40), (30, 36), (32, 33), (57, 59)])
def test_another_size_is_made_or_refused_with_one_that_is(
    name: str, network: type[Generator] | type[Discriminator], height: int, width: int
) -> None:
    size, refusal = (height, width), ""
    try:
        network(small(name), (3, height, width))
    except ConfigError as error:
        refusal = str(error)
    if refusal:
        advice = re.search(r"; give for example `size=(\d+)x(\d+)`$", refusal)
        assert advice is not None, refusal
        assert f"{height}x{width}" in refusal
        size = int(advice[1]), int(advice[2])
    model = network(small(name), (3, *size))
    if isinstance(model, Generator):
        assert model(torch.randn(2, LATENT)).shape == (2, 3, *size)
    else:
        assert model(torch.randn(2, 3, *size)).shape == (2,)


@each_row
def test_labels_are_given_where_there_are_classes_and_nowhere_else(name: str) -> None:
    for classes, labels in ((0, some(CLASSES)), (CLASSES, None)):
        with pytest.raises(AssertionError):
            generator(name, classes)(torch.randn(4, LATENT), labels)
        with pytest.raises(AssertionError):
            discriminator(name, classes)(pictures(), labels)


@each_row
@with_and_without_labels
def test_the_discriminator_sees_each_image_alone(name: str, classes: int) -> None:
    model, labels = discriminator(name, classes).train(), some(classes)
    x, other = pictures(), pictures(seed=1)
    other[2] = x[2]
    # Copies, because a forward in training may leave a trace in the network; it must not be one of the images.
    first, second = copy.deepcopy(model), copy.deepcopy(model)
    torch.testing.assert_close(first(x, labels)[2], second(other, labels)[2])
    torch.testing.assert_close(first.state_dict(), second.state_dict())
    model.eval()
    alone = [model(one[None], None if labels is None else labels[k : k + 1]) for k, one in enumerate(x)]
    torch.testing.assert_close(model(x, labels), torch.cat(alone), rtol=1e-4, atol=1e-4)


@each_row
def test_without_draws_nothing_is_left_to_chance(name: str) -> None:
    model = discriminator(name).train()
    assert torch.equal(copy.deepcopy(model)(pictures()), copy.deepcopy(model)(pictures()))


@each_row
def test_labels_change_what_is_made_and_what_is_seen(name: str) -> None:
    made = generator(name, CLASSES).eval()(torch.randn(1, LATENT).expand(CLASSES, -1), torch.arange(CLASSES))
    assert all(float((made[k] - made[j]).detach().abs().max()) > 1e-3 for k in range(CLASSES) for j in range(k))
    model, x = discriminator(name, CLASSES).eval(), pictures(1).expand(CLASSES, -1, -1, -1)
    logits = model(x, torch.arange(CLASSES)).tolist()
    assert len({round(value, 4) for value in logits}) == CLASSES


@each_row
@with_and_without_labels
def test_every_weight_learns(name: str, classes: int) -> None:
    make, judge, labels = generator(name, classes), discriminator(name, classes), some(classes, 10)
    judge(make(torch.randn(10, LATENT), labels), labels).square().sum().backward()
    for network in (make, judge):
        idle = [key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()]
        # A constant before batch normalisation does nothing.
        assert all(key.endswith("bias") for key in idle), idle
        assert not idle or any(isinstance(part, nn.BatchNorm2d) for part in network.modules())


@each_row
@with_and_without_labels
def test_saving_and_loading_is_the_identity(name: str, classes: int) -> None:
    z, labels, x = torch.randn(4, LATENT), some(classes), pictures()
    for build, one in ((generator, z), (discriminator, x)):
        first, second = build(name, classes), (Generator if build is generator else Discriminator)(
            small(name), SHAPE, classes
        )  # fmt: skip
        first(one, labels)  # what a forward leaves behind is saved too
        second.load_state_dict(first.state_dict())
        assert torch.equal(first.eval()(one, labels), second.eval()(one, labels))


@each_row
def test_the_same_seed_makes_the_same_network_and_another_seed_another(name: str) -> None:
    for build in (Generator, Discriminator):
        states = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            states.append(torch.cat([value.flatten() for value in build(small(name), SHAPE, CLASSES).parameters()]))
        assert torch.equal(states[0], states[1])
        assert not torch.equal(states[0], states[2])


def r1(model: Discriminator, x: Tensor, labels: Tensor | None) -> Tensor:
    x = x.detach().requires_grad_()
    (gradients,) = torch.autograd.grad(model(x, labels).sum(), x, create_graph=True)
    return gradients.square().sum() / len(x)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `float()` stand for at least float32, so that a network may be checked in float64."""
    plain: Callable[[Tensor], Tensor] = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else plain(x))


@each_row
@with_and_without_labels
@pytest.mark.usefixtures("double")
def test_the_gradient_of_the_penalty_is_that_of_finite_differences(name: str, classes: int) -> None:
    model, labels = discriminator(name, classes).eval().double(), some(classes)
    x = pictures().double()
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(r1(model, x, labels), list(parameters.values()), allow_unused=True)
    way = {key: torch.randn_like(value) * 0.1 for key, value in parameters.items()}

    def moved(step: float) -> float:
        state = {key: value.detach() + step * way[key] for key, value in parameters.items()}
        values = copy.deepcopy(model)
        values.load_state_dict(state, strict=False)
        return float(r1(values, x, labels).detach())

    slope = (moved(1e-6) - moved(-1e-6)) / 2e-6
    used = zip(way.values(), gradients, strict=True)
    expected = sum(float((step * gradient).sum()) for step, gradient in used if gradient is not None)
    assert abs(slope) > 1e-3
    assert slope == pytest.approx(expected, rel=1e-4)


@each_row
@pytest.mark.usefixtures("double")
def test_images_have_second_derivatives(name: str) -> None:
    model = discriminator(name, shape=(1, 16, 16)).eval().double()
    x = pictures(2, (1, 16, 16)).double().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda images: model(images).square(), x, fast_mode=True)


@each_row
@with_and_without_labels
def test_a_step_with_penalties_under_bf16_is_near_that_of_float32(name: str, classes: int) -> None:
    fresh, labels, directions = discriminator(name, classes), some(classes, 16), []
    for context in (bf16(), torch.autocast("cpu", enabled=False)):
        model, x = copy.deepcopy(fresh), pictures(16).requires_grad_()
        with context:
            logits = model(x, labels)
        (slopes,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        assert slopes.dtype == torch.float32
        (F.softplus(logits[1::2] - logits[0::2]).mean() + slopes.square().sum() / len(x)).backward()
        gradients = [value.grad for value in model.parameters() if value.grad is not None]
        assert all(value.dtype == torch.float32 and bool(torch.isfinite(value).all()) for value in gradients)
        directions.append(torch.cat([value.flatten() for value in gradients]))
    assert float(torch.cosine_similarity(*directions, dim=0)) > 0.95
    assert float(directions[0].norm() / directions[1].norm()) == pytest.approx(1, abs=0.1)


@each_row
def test_a_generator_at_rest_makes_each_image_alone(name: str) -> None:
    model, z = generator(name), torch.randn(6, LATENT)
    for _ in range(3):
        model(torch.randn(16, LATENT))
    model.eval()
    together, alone = model(z), torch.cat([model(one[None]) for one in z])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@each_row
def test_a_copy_goes_its_own_way(name: str) -> None:
    model, z = generator(name, CLASSES).eval(), torch.randn(4, LATENT)
    twin = copy.deepcopy(model)
    before = model(z, some(CLASSES))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    assert torch.equal(model(z, some(CLASSES)), before)
    assert not torch.equal(twin(z, some(CLASSES)), before)
