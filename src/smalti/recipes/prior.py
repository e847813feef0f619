"""Train a transformer on the codes of a trained VQ-VAE.

    raster     -log p(c_t | c_0 .. c_{t-1}), the mean over all codes of all images
    annealed   the same in a random order for each image, with the probability 1 - (share of the training) / anneal,
               else in rows
    masked     -log p(hidden | the rest), of ceil(L cos(pi/2 u)) tokens, u uniform in [0, 1) for each image

All of it in bits. The first bias of the logits is the log-frequency of the codes, and what they are known by comes from
the values they stand for, so that codes of like values begin alike. Labels and captions are left out for
some images, so that there can be guidance; of a caption with commas in it at times one part alone is seen, so that a
prompt need not be as long as captions are.
Sources: Esser et al. 2021, arXiv:2012.09841; Yu et al. 2024, arXiv:2411.00776; Chang et al. 2022, arXiv:2202.04200.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import chain
from typing import cast

import torch
from torch import Tensor

from smalti.config.prior import PriorConfig
from smalti.config.run import RunConfig
from smalti.errors import ConfigError
from smalti.models.prior.conditioning import ClassEncoder
from smalti.models.prior.image_prior import ImagePrior, context_of
from smalti.models.prior.likelihood import bits_of
from smalti.models.prior.sampling import Sampling
from smalti.models.prior.transformer import PriorTransformer
from smalti.quantize import Quantizer
from smalti.recipes.base import Codes, Recipe, Score, TrainingContext, initial_weights
from smalti.runtime.distributed import all_reduce_sum, world
from smalti.runtime.rng import Draws, seeded_generator
from smalti.runtime.state import TrainingState

NO_SCORE = torch.finfo(torch.float32).max  # worse than any, and finite as all weights must be
SMOOTHING = 1.0  # added to the count of every code, so that none is impossible


class PriorRecipe(Recipe[Codes]):
    """Modules: `prior` and `patience`. Logs: bits, of a code."""

    kind = "prior"
    headline = ("bits",)
    score_images = 2_000

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        super().__init__(config, context)
        self.model = cast(PriorConfig, config.model)
        if context.tokenizer is None:
            raise ConfigError(
                "a prior learns codes, and the data are images; write codes with smalti encode RUN SOURCE --out CODES, "
                "then give --data CODES"
            )
        if self.model.condition == "class" and context.classes < 2:
            raise ConfigError(
                f"model.condition is class, but the codes have {'one class' if context.classes else 'no labels'}; "
                "set model.condition=none, or encode images that lie in a folder for each class"
            )
        if self.model.condition == "text" and not context.captions:
            raise ConfigError("model.condition is text, but the codes have no captions; set model.condition=none")
        self.tokenizer = context.tokenizer.module
        with initial_weights(config.train.seed):
            whole = ImagePrior(self.model, self.tokenizer, context.image, context.classes)
        self.prior = cast(PriorTransformer, self.add_module("prior", whole.prior))
        self.early_stopping = self.add_state("early_stopping", _EarlyStopping())
        self.add_optimizer("prior", self.prior, self.model.optimizer)
        self.add_average("prior")
        self._unordered = False  # whether some images were learned in random orders in the last step

    @torch.no_grad()
    def start(self, batches: Callable[[], Iterable[Codes]]) -> None:
        counts = torch.full_like(self.prior.bias, SMOOTHING)
        of_classes = torch.zeros(self.prior.classes, device=counts.device)
        for batch in batches():
            if self.prior.classes and batch.labels is not None:
                of_classes += torch.bincount(batch.labels, minlength=self.prior.classes)
            for plane, codes in enumerate(batch.codes.transpose(0, 1)):
                counts[plane] += torch.bincount(codes.flatten(), minlength=counts.shape[1])
        self.prior.init_from_codebook(
            values_of_codes(self.tokenizer.quantizer), seeded_generator(self.config.train.seed, 10)
        )
        for plane, size in enumerate(self.prior.codebook_sizes):
            shares = counts[plane, :size] / counts[plane, :size].sum()
            self.prior.bias[plane, :size] = shares.log()
        if isinstance(self.prior.context, ClassEncoder):
            self.prior.context.shares.copy_(of_classes / of_classes.sum())
        self.averages["prior"].module.load_state_dict(self.prior.state_dict())

    def step(self, batch: Codes, images_seen: int) -> dict[str, Tensor]:
        self._unordered = self.model.order == "annealed" and images_seen < self.model.anneal * self.horizon
        draws = Draws(self.draw_seed, images_seen, device=self.context.device)
        tokens = self.prior.tokens(batch.codes)
        bits, weight = self._bits(self.prior, tokens, batch, draws, images_seen)
        # Over all ranks as many codes count as over one that has their whole batch.
        loss = (bits * weight).sum() / (all_reduce_sum(weight.sum().float()) / world())
        self.descend("prior", loss, images_seen)
        self.update_averages(images_seen)
        return {"bits": loss.detach()}

    def compile(self) -> None:
        for block in self.prior.blocks:
            block.compile()

    def _bits(
        self, prior: PriorTransformer, tokens: Tensor, batch: Codes, draws: Draws, images_seen: int
    ) -> tuple[Tensor, Tensor]:
        """Bits of each code in training, (B, L, I), and its weight."""
        count = len(tokens)
        dropped = draws.uniform(count) < self.model.condition_dropout
        captions = self._parts(batch.captions, draws) if self.model.condition == "text" else None
        with self.context.autocast():
            context = context_of(prior, batch.labels, captions, count, dropped, draws)
            if prior.causal:
                order = self._order(count, draws, images_seen)
                logits = prior.causal_logits(tokens, context, order=order, draws=draws)
                weight = torch.ones_like(tokens)
            else:
                hidden = self._hide(count, draws)
                logits = prior.masked_logits(tokens, hidden, context, draws=draws)
                weight = hidden[:, :, None].expand_as(tokens)
        return bits_of(logits, tokens), weight

    def _parts(self, captions: list[str] | None, draws: Draws) -> list[str]:
        """Each caption, or what stands between two commas of it."""
        found = list(captions or [])
        for row, (chance, which) in enumerate(draws.uniform(len(found), 2).tolist()):
            parts = found[row].split(",")
            if chance < self.model.text_parts:
                found[row] = parts[int(which * len(parts))].strip()
        return found

    def _order(self, count: int, draws: Draws, images_seen: int) -> Tensor | None:
        """(B, L), the order that each image's tokens are learned in."""
        if self.model.order != "annealed":
            return None
        share = min(1.0, images_seen / max(1.0, self.model.anneal * self.horizon))
        random = draws.uniform(count, self.prior.length).argsort(dim=1)
        rows = torch.arange(self.prior.length, device=random.device)
        return torch.where(draws.uniform(count, 1) < 1 - share, random, rows)

    def _hide(self, count: int, draws: Draws) -> Tensor:
        """(B, L) bool."""
        length = self.prior.length
        hidden = (length * torch.cos(math.pi / 2 * draws.uniform(count, 1))).ceil().clamp(1, length)
        return draws.uniform(count, length).argsort(dim=1).argsort(dim=1) < hidden

    @torch.no_grad()
    def preview(self, batch: Codes) -> dict[str, Tensor]:
        """Images that are drawn, of the labels or captions of the first ones."""
        count = len(batch.codes)
        whole = self.export()
        with self.context.autocast():
            codes = whole.draw(
                range(count), self.config.train.seed, Sampling(),
                labels=batch.labels if whole.condition == "class" else None,
                texts=batch.captions if whole.condition == "text" else None,
            )  # fmt: skip
            return {"samples": whole.decode(codes)}

    @torch.no_grad()
    def score(self, batches: Iterable[Codes]) -> Score:
        """Bits of a held-out code: exact for a causal prior in rows, of hidden codes for a masked one."""
        prior, total, number = cast(PriorTransformer, self.averages["prior"].module), 0.0, 0.0
        for index, batch in enumerate(batches):
            tokens = prior.tokens(batch.codes)
            with self.context.autocast():
                context = context_of(prior, batch.labels, batch.captions, len(tokens))
                if prior.causal:
                    logits, weight = prior.causal_logits(tokens, context), torch.ones_like(tokens)
                else:
                    # As many hidden in one image as in the next, and the same ones each time.
                    noise = torch.rand(tokens.shape[:2], generator=seeded_generator(self.config.train.seed, 9, index))
                    steps = (torch.arange(len(tokens)) + 0.5) / len(tokens)
                    hidden_count = (prior.length * torch.cos(math.pi / 2 * steps)).ceil()[:, None]
                    hidden = (noise.argsort(dim=1).argsort(dim=1) < hidden_count).to(tokens.device)
                    logits = prior.masked_logits(tokens, hidden, context)
                    weight = hidden[:, :, None].expand_as(tokens)
            total += float((bits_of(logits, tokens) * weight).sum())
            number += float(weight.sum())
        return Score("bits_per_code", total / number, larger_is_better=False)

    def check_score(self, score: Score) -> str | None:
        # The score is of codes in rows: while orders are still random it may stand still though much is learned.
        if not self._unordered:
            self.early_stopping.observe(score.value)
        return None

    def should_stop(self) -> str | None:
        worse = int(self.early_stopping.without_improvement)
        if not 0 < self.model.patience <= worse:
            return None
        return f"it learned enough: {worse} scores in a row were no better than the best one (model.patience)"

    def discard_scores(self) -> None:
        self.early_stopping.reset()

    def export(self) -> ImagePrior:
        with torch.device("meta"):
            whole = ImagePrior(self.model, self.tokenizer, self.context.image, self.context.classes)
        whole.prior = cast(PriorTransformer, self.averages["prior"].module)
        return whole.eval()


def values_of_codes(quantizer: Quantizer) -> list[Tensor]:
    """For each plane (K, D) on the CPU: the values of its codes where those of all other planes are 0."""
    found = []
    for plane, size in enumerate(quantizer.codebook_sizes):
        codes = torch.zeros(size, len(quantizer.codebook_sizes), 1, 1, dtype=torch.int64)
        codes[:, plane, 0, 0] = torch.arange(size)
        device = next(chain(quantizer.parameters(), quantizer.buffers()), codes).device
        found.append(quantizer.decode(codes.to(device)).flatten(1).cpu())
    return found


class _EarlyStopping(TrainingState):
    """The best score so far, and how many scores in a row were no better."""

    best: Tensor
    without_improvement: Tensor

    def __init__(self) -> None:
        super().__init__(best=torch.tensor(NO_SCORE), without_improvement=torch.zeros((), dtype=torch.int64))

    def observe(self, score: float) -> None:
        if score < float(self.best):
            self.best.fill_(score)
            self.without_improvement.zero_()
        else:
            self.without_improvement += 1

    def reset(self) -> None:
        self.best.fill_(NO_SCORE)
        self.without_improvement.zero_()
