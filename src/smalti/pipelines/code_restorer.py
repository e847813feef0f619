"""Restoring pictures of any size with a model that predicts codes, nearer to or farther from what was given."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, cast

import numpy as np
from torch import Tensor

from smalti.errors import ConfigError, arg
from smalti.models.restorer import code_restorer as networks
from smalti.pipelines.autoencoder import Autoencoder
from smalti.pipelines.restorer import Restorer
from smalti.pipelines.tiling import Work, apply_blended


class CodeRestorer(Restorer):
    """Pipeline of a model trained with the recipe `restore-codes`.

    restorer = smalti.load("runs/restored")
    found = restorer.restore(image, fidelity=0.5)

    The fidelity from 0, codes alone, to 1, nearest to the image, is 0.5 if none is given. A VQ-VAE with group
    normalisation or attention looks at all of what it is given at once: its pictures are restored in overlapping
    windows of the size of its training, which are blended, and the side of the windows changes the result.
    """

    missing: ClassVar[str] = "predicts no codes; give a model trained with the preset restore-codes"
    fidelity = 0.5

    @property
    def has_fidelity(self) -> bool:
        return True

    @property
    def blends(self) -> bool:
        """Whether pictures are restored in windows that are blended, so that their size changes the result."""
        return self._codes.reach is None

    @property
    def tokenizer(self) -> Autoencoder:
        """The VQ-VAE whose codes are predicted."""
        assert self.card.tokenizer is not None
        return Autoencoder(self._codes.tokenizer, self.card.tokenizer, self.path, self.device)

    @property
    def _codes(self) -> networks.CodeRestorer:
        return cast(networks.CodeRestorer, self.module)

    @property
    def _network(self) -> Any:
        return _AtFidelity(self._codes, self.fidelity)

    def _with_fidelity(self, fidelity: float | None) -> CodeRestorer:
        if fidelity is None:
            return self
        if not 0 <= fidelity <= 1:
            raise ConfigError(f"{arg('fidelity')} is {fidelity}, but must be from 0 to 1")
        chosen = copy.copy(self)  # not changed itself, so that several threads may use it
        chosen.fidelity = fidelity
        return chosen

    def _in_tiles(self, work: Work, colours: np.ndarray, hole: np.ndarray | None, tile: int | None) -> np.ndarray:
        if not self.blends:
            return super()._in_tiles(work, colours, hole, tile)
        network = self._codes
        side = tile if tile is not None else min(self.card.spec.shape[-2:]) // network.scale
        return apply_blended(
            lambda images: work(images, None), colours, scale=network.scale, multiple=network.multiple, side=side,
            device=self.device,
        )  # fmt: skip


class _AtFidelity:
    """A network of codes as a restorer that takes no fidelity."""

    holes = False

    def __init__(self, network: networks.CodeRestorer, fidelity: float) -> None:
        self.network, self.fidelity = network, fidelity
        self.channels, self.scale = network.channels, network.scale
        self.multiple, self.reach = network.multiple, network.reach

    def __call__(self, images: Tensor, hole: Tensor | None = None) -> Tensor:
        found: Tensor = self.network(images, fidelity=self.fidelity)
        return found
