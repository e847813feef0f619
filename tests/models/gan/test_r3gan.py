"""R3GAN: the paper's counts, every block, how weights begin, and the networks written out with single operations."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from networks import strong
from torch import Tensor, nn

from smalti.config.gan import GANConfig, R3GANConfig
from smalti.errors import ConfigError
from smalti.models.gan.base import Discriminator, Generator
from smalti.models.gan.r3gan import Block

PAPER = R3GANConfig(width=768, taper=1.0, blocks=2, block="grouped", patch=1, resample="smooth")
TINY = R3GANConfig(width=24, taper=0.7, blocks=2)
LATENT = 7


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def generator(config: R3GANConfig, shape: tuple[int, int, int], classes: int = 0) -> Generator:
    return Generator(GANConfig(latent=LATENT, network=config), shape, classes)


def discriminator(config: R3GANConfig, shape: tuple[int, int, int], classes: int = 0) -> Discriminator:
    return Discriminator(GANConfig(network=config), shape, classes)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_networks_for_cifar10_have_the_published_sizes() -> None:
    config = GANConfig(latent=64, network=PAPER)
    generator, discriminator = Generator(config, (3, 32, 32), 10), Discriminator(config, (3, 32, 32), 10)
    assert round(count(generator) / 1e6, 2) == 20.78
    assert round(count(discriminator) / 1e6, 2) == 21.28
    block = 768 * 1536 * 2 + 1536 * 16 * 9 + 2 * 1536
    assert count(generator) == 8 * block + 768 * 16 + (64 + 64) * 768 + 64 * 10 + 768 * 3
    assert count(discriminator) == 8 * block + 768 * 16 + 768 * 768 + 768 * 10 + 768 * 3
    blocks = [part for part in generator.modules() if isinstance(part, Block)]
    assert [(part.conv2.in_channels, part.conv2.groups) for part in blocks] == [(1536, 96)] * 8


@settings(max_examples=12)
@given(
    doublings=st.integers(2, 4),
    block=st.sampled_from(["bottleneck", "grouped"]),
    resample=st.sampled_from(["box", "smooth"]),
    folds=st.integers(0, 4),
    width=st.sampled_from([8, 16, 24, 40]),
)
@example(5, "bottleneck", "smooth", 4, 16)
@example(4, "grouped", "box", 4, 8)  # in patches of 16, the coarsest grid is the only one
def test_every_block_filter_and_patch_goes_with_every_number_of_grids(
    doublings: int, block: str, resample: str, folds: int, width: int
) -> None:
    config = R3GANConfig("r3gan", width, 0.7, 1, block, 2 ** min(folds, doublings), resample)
    shape = (3, 4 << doublings, 5 << doublings)
    images = generator(config, shape)(torch.randn(2, LATENT))
    assert images.shape == (2, *shape)
    assert discriminator(config, shape)(images).shape == (2,)


@given(
    width=st.integers(8, 100),
    taper=st.floats(0.1, 1),
    patch=st.sampled_from([1, 2, 4, 8]),
    doublings=st.integers(3, 6),
)
@settings(max_examples=20)
def test_the_width_falls_by_the_taper_in_multiples_of_16(width: int, taper: float, patch: int, doublings: int) -> None:
    config, side = R3GANConfig("r3gan", width, taper, patch=patch), 4 << doublings
    make, judge = generator(config, (3, side, side)).network, discriminator(config, (3, side, side)).network
    widths = [stage[0].conv1.in_channels for stage in make.stages]
    assert [stage[0].conv1.in_channels for stage in judge.stages] == widths[::-1]
    assert len(widths) == doublings - int(math.log2(patch)) + 1
    assert widths[0] == width
    for k, wide in enumerate(widths[1:], 1):
        assert wide == width or (wide % 16 == 0 and wide < width)
        assert wide == min(width, 16) or abs(wide - width * taper**k) <= 8
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("width", [9, 100, 766])
def test_a_width_that_groups_cannot_share_is_refused(width: int) -> None:
    with pytest.raises(ConfigError, match=f"width is {width}, but grouped blocks need a multiple of 8"):
        R3GANConfig(width=width, block="grouped")
    R3GANConfig(width=width, block="bottleneck")


@settings(max_examples=20)
@given(width=st.integers(1, 20).map(lambda eighth: 8 * eighth))
def test_groups_have_16_channels(width: int) -> None:
    convolution = Block("grouped", width, 1).conv2
    assert convolution.in_channels == convolution.out_channels == 2 * width
    assert convolution.in_channels == 16 * convolution.groups


@pytest.mark.parametrize("patch", [3, 5, 12])
def test_a_patch_is_a_power_of_two(patch: int) -> None:
    with pytest.raises(ConfigError, match=f"patch is {patch}, but must be a power of two"):
        R3GANConfig(patch=patch)


@pytest.mark.parametrize("build", [generator, discriminator])
def test_a_patch_that_is_too_large_for_the_image_is_refused(build: Any) -> None:
    with pytest.raises(ConfigError, match=r"network.patch is 8, but images of 28x40 allow at most 4"):
        build(R3GANConfig(width=16, patch=8), (3, 28, 40))
    build(R3GANConfig(width=16, patch=4), (3, 28, 40))


# The networks with single operations, from the docstring.


def up(x: Tensor, resample: str) -> Tensor:
    if resample == "box":
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    side = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    kernel = (side[:, None] * side).expand(x.shape[1], 1, 4, 4)
    bordered = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return F.conv_transpose2d(bordered, kernel, stride=2, padding=3, groups=x.shape[1])


def down(x: Tensor, resample: str) -> Tensor:
    side = torch.tensor([1.0, 1.0]) / 2 if resample == "box" else torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = (side[:, None] * side).expand(x.shape[1], 1, len(side), len(side))
    return F.conv2d(x, kernel, stride=2, padding=len(side) // 2 - 1, groups=x.shape[1])


def unfolded(x: Tensor, patch: int) -> Tensor:
    batch, channels, height, width = x.shape
    places = x.reshape(batch, channels // patch**2, patch, patch, height, width)
    return places.permute(0, 1, 4, 2, 5, 3).reshape(batch, -1, height * patch, width * patch)


def folded(x: Tensor, patch: int) -> Tensor:
    batch, channels, height, width = x.shape
    places = x.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return places.permute(0, 1, 3, 5, 2, 4).reshape(batch, -1, height // patch, width // patch)


def block(x: Tensor, part: Any, groups: int) -> Tensor:
    y = F.leaky_relu(F.conv2d(x, part.conv1.weight, part.conv1.bias), 0.2)
    y = F.leaky_relu(F.conv2d(y, part.conv2.weight, part.conv2.bias, padding=1, groups=groups), 0.2)
    return x + F.conv2d(y, part.conv3.weight)


def stage(x: Tensor, parts: Any, kind: str) -> Tensor:
    for part in parts:
        x = block(x, part, x.shape[1] // 8 if kind == "grouped" else 1)
    return x


def change(x: Tensor, part: nn.Module) -> Tensor:
    return x if isinstance(part, nn.Identity) else F.conv2d(x, part.weight)


def made(model: Any, config: R3GANConfig, z: Tensor, labels: Tensor | None, *, blocks: bool = True) -> Tensor:
    if labels is not None:
        z = torch.cat([z, model.embedding.weight[labels]], dim=1)
    x = torch.einsum("chw,bc->bchw", model.basis, z @ model.project.weight.T)
    for k, parts in enumerate(model.stages):
        if k:
            x = change(up(x, config.resample), model.changes[k - 1])
        x = stage(x, parts, config.block) if blocks else x
    x = F.conv2d(x, model.image.weight, model.image.bias, padding=int(config.patch > 1))
    return unfolded(x, config.patch)


def seen(model: Any, config: R3GANConfig, images: Tensor, labels: Tensor | None, *, blocks: bool = True) -> Tensor:
    x = folded(images, config.patch)
    x = F.conv2d(x, model.image.weight, model.image.bias, padding=int(config.patch > 1))
    for k, parts in enumerate(model.stages):
        if k:
            x = change(down(x, config.resample), model.changes[k - 1])
        x = stage(x, parts, config.block) if blocks else x
    x = (x * model.gather.weight[:, 0]).sum(dim=(2, 3)) @ model.head.weight.T
    return x[:, 0] if labels is None else (x * model.embedding.weight[labels]).sum(dim=1)


each_kind = pytest.mark.parametrize(
    ("kind", "resample", "patch"),
    [("grouped", "smooth", 1), ("bottleneck", "box", 2), ("bottleneck", "smooth", 4), ("grouped", "box", 1)],
)


@each_kind
@pytest.mark.parametrize("classes", [0, 5])
def test_the_networks_are_their_layers_in_order(kind: str, resample: str, patch: int, classes: int) -> None:
    config, shape = R3GANConfig("r3gan", 24, 0.7, 2, kind, patch, resample), (3, 24, 16)
    make, judge = strong(generator(config, shape, classes)), strong(discriminator(config, shape, classes))
    z, x, labels = torch.randn(3, LATENT), torch.randn(3, *shape), torch.tensor([0, 1, 4]) if classes else None
    expected = made(make.network, config, z, labels)
    assert float(expected.detach().std()) > 0.1
    torch.testing.assert_close(make(z, labels), expected, rtol=1e-4, atol=1e-4)
    expected = seen(judge.network, config, x, labels)
    assert float(expected.detach().std()) > 0.01
    torch.testing.assert_close(judge(x, labels), expected, rtol=1e-4, atol=1e-4)


@each_kind
def test_a_network_begins_as_its_shortcuts(kind: str, resample: str, patch: int) -> None:
    config, shape = R3GANConfig("r3gan", 24, 0.7, 2, kind, patch, resample), (3, 24, 16)
    make, judge = generator(config, shape), discriminator(config, shape)
    z, x = torch.randn(3, LATENT), torch.randn(3, *shape)
    torch.testing.assert_close(make(z), made(make.network, config, z, None, blocks=False), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(judge(x), seen(judge.network, config, x, None, blocks=False), rtol=1e-4, atol=1e-4)
    for part in (*make.modules(), *judge.modules()):
        if isinstance(part, Block):
            assert not part.conv3.weight.any()
            assert part.conv1.weight.any()
            assert part.conv2.weight.any()


@each_kind
def test_weights_begin_with_the_stated_variances(kind: str, resample: str, patch: int) -> None:
    config, shape, classes = R3GANConfig("r3gan", 64, 0.7, 3, kind, patch, resample), (3, 32, 32), 200
    for network in (generator(config, shape, classes).network, discriminator(config, shape, classes).network):
        grids = 4 - int(math.log2(patch))
        inside = {id(part) for block in network.modules() if isinstance(block, Block) for part in block.children()}
        for part in network.modules():
            if part is getattr(network, "gather", None) or (
                isinstance(part, nn.Conv2d | nn.Linear) and part.weight.any()
            ):
                squared = 2 / 1.04 / math.sqrt(3 * grids) if id(part) in inside else 1.0
                expected = math.sqrt(squared / part.weight[0].numel())
                margin = 5 / math.sqrt(2 * part.weight.numel())  # five standard deviations of a standard deviation
                assert float(part.weight.detach().std()) == pytest.approx(expected, rel=margin)
                bias = getattr(part, "bias", None)
                assert bias is None or not bias.any()
        wide = 1.0 if isinstance(network, type(generator(config, shape).network)) else 64**-0.5
        assert float(network.embedding.weight.detach().std()) == pytest.approx(wide / classes**0.5, rel=0.05)


def test_fresh_networks_keep_the_size_of_what_they_are_given() -> None:
    make, judge = generator(TINY, (3, 32, 32), 4), discriminator(TINY, (3, 32, 32), 4)
    labels = torch.arange(64) % 4
    images = make(torch.randn(64, LATENT), labels)
    assert 0.3 < float(images.detach().std()) < 2
    logits = judge(torch.randn(64, 3, 32, 32), labels)
    assert 0.01 < float(logits.detach().std()) < 2


@pytest.mark.parametrize("kind", ["grouped", "bottleneck"])
def test_the_coarsest_grid_is_float32_under_autocast_and_the_finest_is_not(kind: str) -> None:
    config = dataclasses.replace(TINY, block=kind)
    make, judge = strong(generator(config, (3, 32, 32), 3)), strong(discriminator(config, (3, 32, 32), 3))
    types: dict[str, set[torch.dtype]] = {}

    def watch(name: str, part: nn.Module) -> None:
        def note(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            types.setdefault(name, set()).update({inputs[0].dtype, output.dtype})

        for inner in part.modules():
            if inner is part or isinstance(inner, nn.Conv2d):
                inner.register_forward_hook(note)

    for name, part in {
        "G coarse": make.network.stages[0],
        "G project": make.network.project,
        "D coarse": judge.network.stages[-1],
        "D gather": judge.network.gather,
        "D head": judge.network.head,
        "G fine": make.network.stages[-1],
        "D fine": judge.network.stages[0],
    }.items():
        watch(name, part)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = make(torch.randn(2, LATENT), torch.arange(2))
        logits = judge(images, torch.arange(2))
    assert (images.dtype, logits.dtype) == (torch.float32, torch.float32)
    assert {name for name, kinds in types.items() if kinds == {torch.float32}} == {
        "G coarse", "G project", "D coarse", "D gather", "D head"
    }  # fmt: skip
    assert all(torch.bfloat16 in types[name] for name in ("G fine", "D fine"))


def test_a_patch_of_pixels_is_one_place_of_the_finest_grid() -> None:
    model = discriminator(R3GANConfig(width=16, patch=4), (3, 32, 32)).network
    assert model.image.in_channels == 3 * 16
    assert model.image.kernel_size == (3, 3)
    assert len(model.stages) == 2
    assert discriminator(R3GANConfig(width=16, patch=1), (3, 32, 32)).network.image.kernel_size == (1, 1)


def test_channels_stay_last_in_memory() -> None:
    for patch in (1, 2):
        config = dataclasses.replace(TINY, patch=patch)
        images = generator(config, (3, 32, 32))(torch.randn(4, LATENT))
        assert images.is_contiguous(memory_format=torch.channels_last)
