"""Checks that a tokenizer, a trained autoencoder, matches a set of codes."""

from __future__ import annotations

from torch import nn

from smalti.checkpoint.file import Card
from smalti.data.codes import TOKENIZER, CodeSet
from smalti.errors import DataError
from smalti.models.autoencoder.autoencoder import Autoencoder


def check_tokenizer(codes: CodeSet, module: nn.Module, card: Card) -> Autoencoder:
    """Check that a model encoded a set of codes and that their index matches it; returns the model as an Autoencoder.

    Raises:
        DataError: another model encoded them, or the index contradicts the model.
    """
    about = codes.about
    if card.digest != about.tokenizer or not isinstance(module, Autoencoder):
        raise DataError(
            f"the codes in {codes.folder} are of the tokenizer {about.tokenizer[:16]}, but "
            f"{codes.folder / TOKENIZER} is {card.digest[:16]}; encode the images again"
        )
    grid = (-(-codes.shape[1] // module.stride), -(-codes.shape[2] // module.stride))
    found, expected = (about.codebook_sizes, about.grid), (module.quantizer.codebook_sizes, grid)
    if found != expected or card.spec.shape[0] != codes.shape[0]:
        raise DataError(
            f"the index of {codes.folder} does not fit its tokenizer: {len(about.codebook_sizes)} planes of codes on "
            f"{about.grid}, for {len(module.quantizer.codebook_sizes)} on {grid}; encode the images again"
        )
    return module
