"""A generator of images: a prior over codes together with the autoencoder that decodes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smalti.config.prior import PriorConfig
from smalti.data.spec import ImageSpec
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.prior.block import Context
from smalti.models.prior.conditioning import PADDING, ClassEncoder
from smalti.models.prior.sampling import Sampling, sample, uniform_numbers
from smalti.models.prior.transformer import PriorTransformer
from smalti.runtime.rng import Draws

GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, modulo 1, fill [0, 1) evenly from the first ones on


class ImagePrior(nn.Module):
    """Images of codes that are sampled from a prior.

    Args:
        tokenizer: whose codes they are.
        image: (channels, height, width) of what it makes.
        classes: number of labels in the data, for condition "class".

    Attributes:
        condition: "none", "class" or "text".
        classes: number of labels, 0 without.
    """

    def __init__(
        self, config: PriorConfig, tokenizer: Autoencoder, image: tuple[int, int, int], classes: int = 0
    ) -> None:
        super().__init__()
        self.image, self.condition = image, config.condition
        self.classes = classes if config.condition == "class" else 0
        grid = (-(-image[1] // tokenizer.stride), -(-image[2] // tokenizer.stride))
        self.prior = PriorTransformer(config, tokenizer.quantizer.codebook_sizes, grid, self.classes)
        self.tokenizer = tokenizer

    def context(self, labels: Tensor | None, texts: Sequence[str] | None, count: int) -> Context | None:
        """The context of `count` images; the unconditional one where neither labels nor texts are given."""
        return context_of(self.prior, labels, texts, count)

    def labels_by_frequency(self, numbers: Sequence[int]) -> list[int] | None:
        """A label for each image of these numbers, each as often as in the training images; None without labels."""
        if not isinstance(self.prior.context, ClassEncoder):
            return None
        ends = self.prior.context.shares.cpu().double().cumsum(0)  # Metal has no float64
        shares = torch.tensor([(number + 0.5) * GOLDEN % 1 for number in numbers], dtype=torch.float64)
        labels: list[int] = torch.searchsorted(ends, shares * ends[-1], right=True).clamp_max(len(ends) - 1).tolist()
        return labels

    @torch.no_grad()
    def draw(
        self,
        numbers: Sequence[int],
        seed: int,
        how: Sampling,
        *,
        labels: Tensor | None = None,
        texts: Sequence[str] | None = None,
        codes: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Sample the codes of images of these numbers: (B, P, h, w); the arguments are those of `sample`."""
        device = self.prior.table.device
        uniform = uniform_numbers(self.prior, numbers, seed, how.passes, device)
        context = self.context(labels, texts, len(numbers))
        nothing = self.context(None, None, len(numbers)) if how.guidance != 1 else None
        return sample(self.prior, uniform, how, context=context, nothing=nothing, codes=codes, hidden=hidden)

    def decode(self, codes: Tensor) -> Tensor:
        """(B, P, h, w) codes -> (B, C, H, W) images in [-1, 1]."""
        return self.tokenizer.decode(codes)[..., : self.image[1], : self.image[2]]


def context_of(
    prior: PriorTransformer,
    labels: Tensor | None,
    texts: Sequence[str] | None,
    count: int,
    dropped: Tensor | None = None,
    draws: Draws | None = None,
) -> Context | None:
    """Encode labels or texts for a prior; None where it has no condition.

    Args:
        count: of images.
        dropped: (B,) bool, images whose condition is left out; None: all where none are given, else none.
        draws: noise for dropout, in training.
    """
    if prior.context is None:
        return None
    device, kind = prior.table.device, prior.config.condition
    given = labels if kind == "class" else texts
    if dropped is None:
        dropped = torch.full((count,), given is None, device=device)
    if kind == "text":
        words: Tensor | None = bytes_of(texts or [""] * count, prior.config.text_bytes).to(device)
    else:
        words = torch.zeros(count, dtype=torch.int64, device=device) if labels is None else labels
    context: Context = prior.context(words, dropped, draws)
    return context


def bytes_of(texts: Sequence[str], longest: int) -> Tensor:
    """(B, longest) int64: the first bytes of each text in UTF-8, small letters, PADDING after the end."""
    rows = torch.full((len(texts), longest), PADDING, dtype=torch.int64)
    for row, text in zip(rows, texts, strict=True):
        found = text.lower().encode("utf-8", "replace")[:longest]
        row[: len(found)] = torch.tensor(list(found), dtype=torch.int64)
    return rows


def build_image_prior(config: PriorConfig, spec: ImageSpec, classes: int, tokenizer: nn.Module | None) -> ImagePrior:
    """The network of the kind `prior`, without its weights; it includes its tokenizer."""
    assert isinstance(tokenizer, Autoencoder)
    return ImagePrior(config, tokenizer, spec.shape, classes)
