"""Base of the recipes that learn the codes of a trained VQ-VAE: their batches, tokenizer and checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import cast

import numpy as np
import torch
from torch import Tensor

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.tokenizer import check_tokenizer
from smalti.config.run import RunConfig
from smalti.data.codes import TOKENIZER, CodeBatch, CodeSet
from smalti.data.dataset import Dataset
from smalti.data.order import evenly_spread
from smalti.data.spec import CodeSpec, ImageSpec, Spec
from smalti.errors import ConfigError, DataError, arg, command
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.quantize import Quantizer
from smalti.recipes.base import Recipe, Tokenizer, TrainingContext

START_CODES, START_BATCH = 20_000_000, 1024  # codes whose frequencies are counted, and grids per batch
SMOOTHING = 1.0  # added to the count of each code, so that no code has probability 0


@dataclass(frozen=True)
class Codes:
    """A batch of codes on the device: (B, P, h, w) int64, labels (B,) int64 or None, captions or None."""

    codes: Tensor
    labels: Tensor | None = None
    captions: list[str] | None = None


class CodeRecipe(Recipe[Codes]):
    """Base of the recipes that learn codes.

    Attributes:
        autoencoder: the network of the tokenizer.
    """

    data = CodeSpec

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        super().__init__(config, context)
        if context.tokenizer is None:
            raise ConfigError(
                f"the recipe {config.recipe} learns codes, and the data are images; write codes with "
                f"{command('encode', 'RUN', 'SOURCE', out='CODES')}, then give {arg('data', 'CODES')}"
            )
        self.autoencoder = cast(Autoencoder, context.tokenizer.module)

    @classmethod
    def check_data(cls, config: RunConfig, data: Dataset, held_out: Dataset | None) -> None:
        if held_out is not None and isinstance(held_out.spec, CodeSpec) != isinstance(data.spec, CodeSpec):
            raise DataError(f"{held_out.source} and {data.source} are not both images, or both codes")
        if isinstance(data, CodeSet) and isinstance(held_out, CodeSet):
            _check_same_codes(data, held_out)
        super().check_data(config, data, held_out)

    @classmethod
    def context_for(cls, data: Dataset, device: torch.device, precision: str) -> TrainingContext:
        """The training context, with the tokenizer that is stored with the codes.

        Raises:
            CheckpointError, DataError: the tokenizer cannot be read, or did not write these codes.
        """
        if not isinstance(data, CodeSet):
            return super().context_for(data, device, precision)
        module, card = checkpoint.read(data.folder / TOKENIZER)
        tokenizer = Tokenizer(check_tokenizer(data, module, card), card).to(device)
        captions = data.about.captions is not None
        classes = 0 if data.labels is None else len(data.classes)
        return TrainingContext(data.spec, classes, device, precision, len(data), tokenizer, captions)

    @property
    def output_spec(self) -> Spec:
        return ImageSpec(*self.context.image)

    def to_device(self, batch: CodeBatch) -> Codes:
        device = self.context.device
        labels = None if batch.labels is None else torch.from_numpy(batch.labels).to(device)
        return Codes(torch.from_numpy(batch.codes).to(device), labels, batch.captions)

    def fitting_batches(self, data: Dataset, seed: int) -> Iterator[CodeBatch]:
        """Evenly spaced code grids, from which code and class frequencies are counted."""
        indices = evenly_spread(len(data), max(1, START_CODES // int(np.prod(data.spec.shape))))
        for start in range(0, len(indices), START_BATCH):
            yield data.take(indices[start : start + START_BATCH])


def _check_same_codes(data: CodeSet, held_out: CodeSet) -> None:
    """Raise DataError if the held-out codes are not of the tokenizer and grid of the training codes."""
    about, other, place = data.about, held_out.about, held_out.source
    for what, found, expected in (
        ("tokenizer", other.tokenizer[:16], about.tokenizer[:16]),
        ("number of planes", len(other.codebook_sizes), len(about.codebook_sizes)),
        ("alphabet", other.codebook_sizes, about.codebook_sizes),
        ("grid", other.grid, about.grid),
    ):
        if found != expected:
            raise DataError(
                f"the {what} of the held-out codes of {place} is {found}, of those to train on {expected}; encode both "
                "with one tokenizer"
            )


def values_of_codes(quantizer: Quantizer) -> list[Tensor]:
    """The codebook of each plane, (K, D) on the CPU: latents of its codes when the codes of all other planes are 0."""
    found = []
    for plane, size in enumerate(quantizer.codebook_sizes):
        codes = torch.zeros(size, len(quantizer.codebook_sizes), 1, 1, dtype=torch.int64)
        codes[:, plane, 0, 0] = torch.arange(size)
        device = next(chain(quantizer.parameters(), quantizer.buffers()), codes).device
        found.append(quantizer.decode(codes.to(device)).flatten(1).cpu())
    return found
