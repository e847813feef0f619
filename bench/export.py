"""Whether `torch.export` takes every preset's networks, and whether the exported programs give the same.

    python bench/export.py [--presets vqvae dcgan ...] [--small]

The parts, at the presets' own sizes (32 x 32 pixels; 256 x 256 for tokenizer-256), with random weights in eval mode:

    encode      images -> codes
    decode      codes -> images
    generator   latents -> images, without labels; and with them
    next token  tokens [, bytes of a text] -> logits of each token from those before it, in one pass
    hidden      tokens and which are hidden -> logits of each token from the others
    features    images -> features

Each is exported by the default way and by `strict=True` (through TorchDynamo), with a dynamic batch; the example has 2
inputs and the program is compared with the network for 1, 2 and 5. "codes equal" is over all of them; "difference" is
the largest one between images, logits or features.

Writes results/export.json; with --small (the networks of the tests) or --presets only prints.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from typing import Any

import machine
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from smalti.config.presets import PRESETS, preset
from smalti.config.run import RunConfig
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.autoencoder.export import DecodeModule, EncodeModule
from smalti.models.gan.base import Generator
from smalti.models.prior.transformer import PriorTransformer
from smalti.models.vision_transformer import VisionTransformer

BATCHES = (2, 1, 5)  # the first one is the example's
CLASSES = 10
SIDES = {"tokenizer-256": 256}
CODES, GRID = (512,), (8, 8)  # of tokenizer-32
Part = tuple[str, nn.Module, tuple[Tensor, ...]]


class NextToken(nn.Module):
    """The logits of each token from those before it; with a text, from that too."""

    def __init__(self, prior: PriorTransformer) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, tokens: Tensor, text: Tensor | None = None) -> Tensor:
        context = None
        if text is not None:
            assert self.prior.context is not None
            context = self.prior.context(text, torch.zeros_like(text[:, 0], dtype=torch.bool))
        return self.prior.causal_logits(tokens, context)


class Hidden(nn.Module):
    """The logits of each token from those that are not hidden."""

    def __init__(self, prior: PriorTransformer) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        return self.prior.masked_logits(tokens, hidden, None)


def awake(module: nn.Module) -> nn.Module:
    """Small random weights where a layer is zero at first, so that every layer shows in the result."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.02)
    return module


def parts_of(name: str, config: RunConfig) -> Iterator[Part]:
    """Each part of a preset with inputs for all batches."""
    side, count, model = SIDES.get(name, 32), sum(BATCHES), config.model
    images = torch.rand(count, 3, side, side) * 2 - 1
    if config.recipe == "vqvae":
        autoencoder = Autoencoder(model, 3)  # type: ignore[arg-type]
        awake(autoencoder)
        with torch.no_grad():
            for layer in autoencoder.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.momentum = 1.0  # statistics are those of these images, and so are the codes
            latents = autoencoder.latents(images)
            last = [layer for layer in autoencoder.encoder.modules() if isinstance(layer, nn.Conv2d)][-1]
            if len(last.weight) == latents.shape[1] and last.bias is not None:  # or scalars would all be rounded alike
                spread, mean = torch.std_mean(latents, dim=(0, 2, 3))
                last.weight /= spread[:, None, None, None]
                last.bias.sub_(mean).div_(spread)
            autoencoder(images)
            codes = autoencoder.eval().codes_of(images)
        yield "encode", EncodeModule(autoencoder), (images,)
        yield "decode", DecodeModule(autoencoder), (codes,)
    elif config.recipe == "gan":
        z, labels = torch.randn(count, model.latent), torch.arange(count) % CLASSES  # type: ignore[union-attr]
        for classes in (0, CLASSES):
            generator = awake(Generator(model, (3, side, side), classes))  # type: ignore[arg-type]
            with torch.no_grad():
                generator(z, labels if classes else None)
            yield "generator" + (", labels" if classes else ""), generator, (z, labels) if classes else (z,)
    elif config.recipe == "prior":
        prior = PriorTransformer(model, CODES, GRID)  # type: ignore[arg-type]
        awake(prior)
        tokens = torch.randint(0, CODES[0], (count, prior.length, prior.inner))
        if not prior.causal:
            yield "hidden", Hidden(prior), (tokens, torch.rand(count, prior.length) < 0.5)
        elif prior.context is None:
            yield "next token", NextToken(prior), (tokens,)
        else:
            yield "next token", NextToken(prior), (tokens, torch.randint(0, 256, (count, model.text_bytes)))  # type: ignore[union-attr]
    else:
        encoder = awake(VisionTransformer(model.encoder, (3, side, side)))  # type: ignore[union-attr]
        with torch.no_grad():
            encoder(images)
        yield "features", encoder, (images,)


def outcome(module: nn.Module, inputs: tuple[Tensor, ...], *, strict: bool) -> dict[str, Any]:
    """What came of exporting a part; never raises."""
    batches = list(zip(*(x.split(BATCHES) for x in inputs), strict=True))
    batch = Dim("batch", min=1)
    started = time.perf_counter()
    try:
        shapes = tuple({0: batch} for _ in inputs)
        program = export(module, batches[0], dynamic_shapes=shapes, strict=strict)
    except Exception as error:  # any: what stops an export is what is asked for
        return {"exported": False, "why": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    taken = time.perf_counter() - started
    differences, equal, distinct = [0.0], True, set[int]()
    for arguments in batches:
        expected, found = module(*arguments), program.module()(*arguments)
        if expected.dtype == torch.int64:
            equal = equal and torch.equal(expected, found)
            distinct |= set(expected.unique().tolist())
        else:
            finite = expected.isfinite()  # logits of codes that a plane does not have are -inf
            same = torch.equal(finite, found.isfinite())
            differences.append(float((expected - found)[finite].abs().max()) if same else math.inf)
    result: dict[str, Any] = {"exported": True, "seconds": round(taken, 2)}
    return result | (
        {"codes_equal": equal, "distinct_codes": len(distinct)}
        if distinct
        else {"largest_difference": max(differences)}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS), metavar="PRESET")
    parser.add_argument("--small", action="store_true", help="the tests' tiny networks")
    options = parser.parse_args()
    rows, results = [("preset", "part", "exported", "strict", "codes equal", "difference", "seconds")], []
    for name in options.presets:
        torch.manual_seed(0)
        for part, module, inputs in parts_of(name, small(name) if options.small else preset(name)):
            with torch.no_grad():
                found = {strict: outcome(module.eval(), inputs, strict=strict) for strict in (False, True)}
            usual, strict = found[False], found[True]
            results.append({"preset": name, "part": part, "default": usual, "strict": strict})
            rows.append((name, part, *cells(usual, strict)))
            for way, why in (("default", usual.get("why")), ("strict", strict.get("why"))):
                if why:
                    print(f"{name}, {part}, {way}: {why}", flush=True)
    machine.table(rows)
    if options.presets == list(PRESETS) and not options.small:
        machine.write("export", {"batches": BATCHES, "results": results})


def cells(usual: dict[str, Any], strict: dict[str, Any]) -> tuple[str, ...]:
    """The rest of a row; where both ways export, the worse of the two."""
    made = [found for found in (usual, strict) if found["exported"]]
    equal = [found["codes_equal"] for found in made if "codes_equal" in found]
    largest = [found["largest_difference"] for found in made if "largest_difference" in found]
    return (
        "yes" if usual["exported"] else "no",
        "yes" if strict["exported"] else "no",
        ("yes" if all(equal) else "no") if equal else "",
        f"{max(largest):.1e}" if largest else "",
        f"{usual['seconds']:.1f}" if usual["exported"] else "",
    )


def small(name: str) -> RunConfig:
    import sys
    from pathlib import Path

    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    from small_runs import small_config

    return small_config(name)


if __name__ == "__main__":
    main()
