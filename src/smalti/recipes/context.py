"""Training of the context net for the codes of a trained VQ-VAE: the mean of -log2 p(code | those before it).

It starts from the frequencies of the codes, and with similar embeddings for similar codes. The score is that of the
integer net, which is what the codes take in a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.codec.code_context import CodeContext
from smalti.config.code_context import CodeContextConfig
from smalti.config.run import RunConfig
from smalti.models.codec.code_context import CodeContextNet, CompressedAutoencoder
from smalti.recipes.base import Score, TrainingContext, initial_weights
from smalti.recipes.codes import SMOOTHING, CodeRecipe, Codes, values_of_codes


class ContextRecipe(CodeRecipe):
    """Module: `context`. Logs: bits, per code."""

    kind = "context"
    headline = ("bits",)
    score_images = 1_000

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        super().__init__(config, context)
        self.model = cast(CodeContextConfig, config.model)
        with initial_weights(config.train.seed):
            net = CodeContextNet(self.model, self.autoencoder.quantizer.codebook_sizes)
        self.net = cast(CodeContextNet, self.add_module("context", net))
        self.add_optimizer("context", self.net, self.model.optimizer)
        self.add_average("context")

    @torch.no_grad()
    def start(self, batches: Callable[[], Iterable[Codes]]) -> None:
        device = self.context.device
        counts = [torch.full((size,), SMOOTHING, device=device) for size in self.net.codebook_sizes]
        for batch in batches():
            for count, codes in zip(counts, batch.codes.unbind(dim=1), strict=True):
                count += torch.bincount(codes.flatten(), minlength=len(count))
        self.net.fit(values_of_codes(self.autoencoder.quantizer), counts)
        self.averages["context"].module.load_state_dict(self.net.state_dict())

    def step(self, batch: Codes, images_seen: int) -> dict[str, Tensor]:
        bits = self.net(batch.codes).mean()
        self.descend("context", bits, images_seen)
        self.update_averages(images_seen)
        return {"bits": bits.detach()}

    @torch.no_grad()
    def preview(self, batch: Codes) -> dict[str, Tensor]:
        """The images of codes, and how many bits each position takes: white for that of a fixed length or more."""
        whole, (_, height, width) = self.export(), self.context.image
        images = whole.tokenizer.decode(batch.codes)
        bits = whole.context(batch.codes).sum(dim=1, keepdim=True)
        share = bits / sum(math.log2(size) for size in self.net.codebook_sizes)
        shown = F.interpolate(2 * share.clamp(max=1) - 1, size=images.shape[2:]).expand_as(images)
        return {"images": images[..., :height, :width], "bits": shown[..., :height, :width]}

    @torch.no_grad()
    def score(self, batches: Iterable[Codes]) -> Score:
        """Bits per held-out code by the frequencies of the integer net."""
        net = self.export().context
        exact, total, count = CodeContext(net.arrays(), net.codebook_sizes), 0.0, 0
        for batch in batches:
            total += float(exact.information(batch.codes.cpu().numpy()).sum())
            count += batch.codes.numel()
        return Score("bits_per_code", total / count, larger_is_better=False)

    def export(self) -> CompressedAutoencoder:
        with torch.device("meta"):
            whole = CompressedAutoencoder(self.model, self.autoencoder)
        whole.context = cast(CodeContextNet, self.averages["context"].module)
        return whole.eval()
