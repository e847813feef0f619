"""`torch.export` takes the networks of every preset, for batches of any size."""

from __future__ import annotations

import pytest
import torch
from small_runs import small_config
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from smalti.config.presets import PRESETS
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.autoencoder.export import DecodeModule, EncodeModule
from smalti.models.gan.base import Generator
from smalti.models.prior.transformer import PriorTransformer
from smalti.models.vision_transformer import VisionTransformer

AUTOENCODERS = [name for name, row in PRESETS.items() if row.config.recipe == "vqvae"]
GENERATORS = [name for name, row in PRESETS.items() if row.config.recipe == "gan"]
BATCHES = (2, 1, 5)  # the first one is the example's


def program_of(module: nn.Module, example: tuple[Tensor, ...], *, strict: bool = False) -> ExportedProgram:
    batch = Dim("batch", min=1)
    with torch.no_grad():
        return export(module.eval(), example, dynamic_shapes=tuple({0: batch} for _ in example), strict=strict)


def autoencoder_of(preset: str, *assignments: str, height: int = 18, width: int = 16) -> tuple[Autoencoder, Tensor]:
    """A network whose codebook and statistics are those of some noise, its latents of unit size; and the noise."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(small_config(preset, *assignments).model, 3)
    images = torch.rand(sum(BATCHES), 3, height, width) * 2 - 1
    autoencoder.fit(lambda: [images], batch=len(images))
    with torch.no_grad():
        for layer in autoencoder.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
        latents = autoencoder.latents(images)
        last = [layer for layer in autoencoder.encoder.modules() if isinstance(layer, nn.Conv2d)][-1]
        if len(last.weight) == latents.shape[1] and last.bias is not None:
            spread, mean = torch.std_mean(latents, dim=(0, 2, 3))
            last.weight /= spread[:, None, None, None]
            last.bias.sub_(mean).div_(spread)
        autoencoder(images)
    return autoencoder.eval(), images


def check_autoencoder(autoencoder: Autoencoder, images: Tensor, *, strict: bool) -> None:
    batches = images.split(BATCHES)
    with torch.no_grad():
        codes = [autoencoder.encode(part).codes for part in batches]
        decoded = [autoencoder.decode(part) for part in codes]
    encode = program_of(EncodeModule(autoencoder), (batches[0],), strict=strict).module()
    decode = program_of(DecodeModule(autoencoder), (codes[0],), strict=strict).module()
    assert len(torch.cat(codes).unique()) >= 8
    for part, expected, expected_images in zip(batches, codes, decoded, strict=True):
        assert torch.equal(encode(part), expected)
        torch.testing.assert_close(decode(expected), expected_images)


@pytest.mark.parametrize("preset", AUTOENCODERS)
def test_every_autoencoder_is_exported(preset: str) -> None:
    check_autoencoder(*autoencoder_of(preset), strict=False)


@pytest.mark.parametrize("preset", ["vqvae", "vqvae-64", "vqvae-best", "rvq", "tokenizer-32"])
def test_every_architecture_is_exported_by_dynamo(preset: str) -> None:
    check_autoencoder(*autoencoder_of(preset), strict=True)


@pytest.mark.parametrize("attention", ["true", "false"])
def test_a_grid_of_many_positions_is_exported(attention: str) -> None:
    """More than a fused attention is needed for."""
    setting = f"model.autoencoder.attention={attention}"
    check_autoencoder(*autoencoder_of("tokenizer-256", setting, height=36, width=37), strict=False)


def check_generator(preset: str, classes: int, *assignments: str, strict: bool) -> None:
    torch.manual_seed(0)
    config = small_config(preset, *assignments).model
    generator = Generator(config, (3, 16, 16), classes)
    z = torch.randn(sum(BATCHES), config.latent)
    labels = torch.randint(0, classes, (len(z),)) if classes else None
    with torch.no_grad():
        generator(z, labels)
    generator.eval()
    inputs = list(zip(*(x.split(BATCHES) for x in (z, labels) if x is not None), strict=True))
    program = program_of(generator, inputs[0], strict=strict).module()
    for arguments in inputs:
        with torch.no_grad():
            torch.testing.assert_close(program(*arguments), generator(*arguments))


@pytest.mark.parametrize("preset", GENERATORS)
@pytest.mark.parametrize("classes", [0, 3])
def test_every_generator_is_exported(preset: str, classes: int) -> None:
    check_generator(preset, classes, strict=False)


@pytest.mark.parametrize("block", ["grouped", "bottleneck"])
@pytest.mark.parametrize("resample", ["box", "smooth"])
def test_the_mirrored_generator_is_exported(block: str, resample: str) -> None:
    settings = (f"model.network.block={block}", f"model.network.resample={resample}", "model.network.generator=mirror")
    check_generator("gan-nano", 3, *settings, strict=False)


@pytest.mark.parametrize("preset", ["gan-nano", "sngan", "dcgan"])
def test_every_generator_is_exported_by_dynamo(preset: str) -> None:
    check_generator(preset, 3, strict=True)


class CausalLogits(nn.Module):
    def __init__(self, prior: PriorTransformer) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, tokens: Tensor, condition: Tensor, dropped: Tensor) -> Tensor:
        context = None if self.prior.context is None else self.prior.context(condition, dropped)
        return self.prior.causal_logits(tokens, context)


class MaskedLogits(nn.Module):
    def __init__(self, prior: PriorTransformer) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        return self.prior.masked_logits(tokens, hidden, None)


def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    batches = list(zip(*(x.split(BATCHES) for x in inputs), strict=True))
    program = program_of(module, batches[0]).module()
    for arguments in batches:
        with torch.no_grad():
            torch.testing.assert_close(program(*arguments), module(*arguments))


@pytest.mark.parametrize(("condition", "codebook_sizes"), [("none", (9,)), ("class", (9, 5)), ("text", (9,))])
def test_the_logits_of_a_causal_prior_are_exported(condition: str, codebook_sizes: tuple[int, ...]) -> None:
    config = small_config("prior-nano", f"model.condition={condition}", "model.planes=depth").model
    prior = PriorTransformer(config, codebook_sizes, (3, 2), classes=4)
    count = sum(BATCHES)
    tokens = torch.randint(0, 5, (count, prior.length, prior.inner))
    words = torch.randint(0, 4, (count, 12) if condition == "text" else (count,))
    check(CausalLogits(prior), (tokens, words, torch.arange(count) % 2 == 0))


def test_the_logits_of_a_masked_prior_are_exported() -> None:
    prior = PriorTransformer(small_config("maskgit-small").model, (9,), (3, 2))
    tokens = torch.randint(0, 9, (sum(BATCHES), prior.length, prior.inner))
    check(MaskedLogits(prior), (tokens, torch.rand(tokens.shape[:2]) < 0.5))


def test_the_features_of_an_encoder_are_exported() -> None:
    encoder = VisionTransformer(small_config("smalti-vit").model.encoder, (3, 16, 16))
    check(encoder, (torch.rand(sum(BATCHES), 3, 16, 16),))
