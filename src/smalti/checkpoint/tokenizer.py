"""The tokenizer of a set of codes: the autoencoder that wrote them."""

from __future__ import annotations

from torch import nn

from smalti.checkpoint.file import Card
from smalti.data.codes import TOKENIZER, CodeSet
from smalti.errors import DataError
from smalti.models.autoencoder.autoencoder import Autoencoder


def check_tokenizer(codes: CodeSet, module: nn.Module, card: Card) -> Autoencoder:
    """See that a model wrote codes, and that their index fits it.

    Raises:
        DataError: they are another one's, or the index says what its codes cannot be.
    """
    about = codes.about
    if card.digest != about.tokenizer or not isinstance(module, Autoencoder):
        raise DataError(
            f"the codes in {codes.folder} are of the tokenizer {about.tokenizer[:16]}, but "
            f"{codes.folder / TOKENIZER} is {card.digest[:16]}; encode the images again"
        )
    grid = (-(-codes.shape[1] // module.stride), -(-codes.shape[2] // module.stride))
    if (about.codebook_sizes, about.grid) != (module.quantizer.codebook_sizes, grid) or card.image[0] != codes.shape[0]:
        raise DataError(
            f"the index of {codes.folder} does not fit its tokenizer: {len(about.codebook_sizes)} planes of codes on "
            f"{about.grid}, for {len(module.quantizer.codebook_sizes)} on {grid}; encode the images again"
        )
    return module
