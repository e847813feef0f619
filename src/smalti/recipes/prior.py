"""Prior training: a transformer that models the codes of a trained VQ-VAE.

    raster     -log p(c_t | c_0 .. c_{t-1}), the mean over all codes of all images
    annealed   the same, but in a random order for each image with probability 1 - t / anneal, where t is the fraction
               of the training that is done; otherwise in raster order
    masked     -log p(masked | unmasked), with ceil(L cos(pi/2 u)) of L tokens masked, u uniform in [0, 1) per image

All losses are in bits. The bias of the logits is initialised to the log-frequency of the codes, and the code embeddings
from the codebook vectors, so that similar codes have similar embeddings. Labels and captions are dropped at random, for
classifier-free guidance. A caption is sometimes replaced by one of its comma-separated parts, so that short prompts
work as well.
Sources: Esser et al. 2021, arXiv:2012.09841; Yu et al. 2024, arXiv:2411.00776; Chang et al. 2022, arXiv:2202.04200.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor

from smalti.config.prior import PriorConfig
from smalti.config.run import RunConfig
from smalti.data.codes import CodeSet
from smalti.data.dataset import Dataset
from smalti.errors import ConfigError, DataError
from smalti.models.prior.conditioning import ClassEncoder
from smalti.models.prior.image_prior import ImagePrior, context_of
from smalti.models.prior.likelihood import bits_of
from smalti.models.prior.sampling import Sampling
from smalti.models.prior.transformer import PriorTransformer
from smalti.recipes.base import Score, TrainingContext, check_same_classes, initial_weights
from smalti.recipes.codes import SMOOTHING, CodeRecipe, Codes, values_of_codes
from smalti.runtime.distributed import all_reduce_sum, world
from smalti.runtime.rng import Draws, seeded_generator
from smalti.runtime.state import TrainingState

NO_SCORE = torch.finfo(torch.float32).max  # worse than any score, but finite, as `Recipe.finite` requires of states


class PriorRecipe(CodeRecipe):
    """Module: `prior`. State: `early_stopping`. Logs: bits, per code."""

    kind = "prior"
    headline = ("bits",)
    score_images = 2_000

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        super().__init__(config, context)
        self.model = cast(PriorConfig, config.model)
        if self.model.condition == "class" and context.classes < 2:
            raise ConfigError(
                f"model.condition is class, but the codes have {'one class' if context.classes else 'no labels'}; "
                "set model.condition=none, or encode images that lie in a folder for each class"
            )
        if self.model.condition == "text" and not context.captions:
            raise ConfigError("model.condition is text, but the codes have no captions; set model.condition=none")
        with initial_weights(config.train.seed):
            whole = ImagePrior(self.model, self.autoencoder, context.image, context.classes)
        self.prior = cast(PriorTransformer, self.add_module("prior", whole.prior))
        self.early_stopping = self.add_state("early_stopping", _EarlyStopping())
        self.add_optimizer("prior", self.prior, self.model.optimizer)
        self.add_average("prior")
        self._random_orders = False  # whether the last step may have used random orders

    @classmethod
    def check_data(cls, config: RunConfig, data: Dataset, held_out: Dataset | None) -> None:
        super().check_data(config, data, held_out)
        condition = cast(PriorConfig, config.model).condition
        if isinstance(held_out, CodeSet):
            for name, missing in (("text", held_out.about.captions is None), ("class", held_out.labels is None)):
                if condition == name and missing:
                    needed = "captions" if name == "text" else "labels"
                    raise DataError(
                        f"the held-out codes of {held_out.source} have no {needed}, which model.condition={name} needs"
                    )
        if held_out is not None and condition == "class":
            check_same_classes(data, held_out)

    @torch.no_grad()
    def start(self, batches: Callable[[], Iterable[Codes]]) -> None:
        counts = torch.full_like(self.prior.bias, SMOOTHING)
        class_counts = torch.zeros(self.prior.classes, device=counts.device)
        for batch in batches():
            if self.prior.classes and batch.labels is not None:
                class_counts += torch.bincount(batch.labels, minlength=self.prior.classes)
            for plane, codes in enumerate(batch.codes.transpose(0, 1)):
                counts[plane] += torch.bincount(codes.flatten(), minlength=counts.shape[1])
        self.prior.init_from_codebook(
            values_of_codes(self.autoencoder.quantizer), seeded_generator(self.config.train.seed, 10)
        )
        for plane, size in enumerate(self.prior.codebook_sizes):
            frequencies = counts[plane, :size] / counts[plane, :size].sum()
            self.prior.bias[plane, :size] = frequencies.log()
        if isinstance(self.prior.context, ClassEncoder):
            self.prior.context.shares.copy_(class_counts / class_counts.sum())
        self.averages["prior"].module.load_state_dict(self.prior.state_dict())

    def step(self, batch: Codes, images_seen: int) -> dict[str, Tensor]:
        self._random_orders = self.model.order == "annealed" and images_seen < self.model.anneal * self.horizon
        draws = Draws(self.draw_seed, images_seen, device=self.context.device)
        tokens = self.prior.tokens(batch.codes)
        bits, weight = self._bits(self.prior, tokens, batch, draws, images_seen)
        # Normalised over the whole batch, so that every code has the same weight for any number of ranks.
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
        """Bits of each code, (B, L, I), and the weights of the codes in the loss, (B, L, I)."""
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
        """Replace captions by one of their comma-separated parts, each with probability `text_parts`."""
        found = list(captions or [])
        for row, (chance, choice) in enumerate(draws.uniform(len(found), 2).tolist()):
            parts = found[row].split(",")
            if chance < self.model.text_parts:
                found[row] = parts[int(choice * len(parts))].strip()
        return found

    def _order(self, count: int, draws: Draws, images_seen: int) -> Tensor | None:
        """The order in which each image's tokens are predicted, (B, L) int64; None for raster order."""
        if self.model.order != "annealed":
            return None
        progress = min(1.0, images_seen / max(1.0, self.model.anneal * self.horizon))
        random = draws.uniform(count, self.prior.length).argsort(dim=1)
        raster = torch.arange(self.prior.length, device=random.device)
        return torch.where(draws.uniform(count, 1) < 1 - progress, random, raster)

    def _hide(self, count: int, draws: Draws) -> Tensor:
        """Random masks by the cosine schedule, (B, L) bool, true for masked tokens."""
        length = self.prior.length
        hidden = (length * torch.cos(math.pi / 2 * draws.uniform(count, 1))).ceil().clamp(1, length)
        return draws.uniform(count, length).argsort(dim=1).argsort(dim=1) < hidden

    @torch.no_grad()
    def preview(self, batch: Codes) -> dict[str, Tensor]:
        """Sampled images, with the labels or captions of the batch."""
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
        """Bits per held-out code: exact and in raster order for a causal prior, of masked codes for a masked one."""
        prior, total, count = cast(PriorTransformer, self.averages["prior"].module), 0.0, 0.0
        for index, batch in enumerate(batches):
            tokens = prior.tokens(batch.codes)
            with self.context.autocast():
                context = context_of(prior, batch.labels, batch.captions, len(tokens))
                if prior.causal:
                    logits, weight = prior.causal_logits(tokens, context), torch.ones_like(tokens)
                else:
                    # The same masks each time, with masking ratios spaced evenly along the schedule rather than random.
                    noise = torch.rand(tokens.shape[:2], generator=seeded_generator(self.config.train.seed, 9, index))
                    steps = (torch.arange(len(tokens)) + 0.5) / len(tokens)
                    hidden_count = (prior.length * torch.cos(math.pi / 2 * steps)).ceil()[:, None]
                    hidden = (noise.argsort(dim=1).argsort(dim=1) < hidden_count).to(tokens.device)
                    logits = prior.masked_logits(tokens, hidden, context)
                    weight = hidden[:, :, None].expand_as(tokens)
            total += float((bits_of(logits, tokens) * weight).sum())
            count += float(weight.sum())
        return Score("bits_per_code", total / count, larger_is_better=False)

    def check_score(self, score: Score) -> str | None:
        # The score is of the raster order, and may stagnate although the model improves while orders are still random.
        if not self._random_orders:
            self.early_stopping.observe(score.value)
        return None

    def should_stop(self) -> str | None:
        stale = int(self.early_stopping.without_improvement)
        if not 0 < self.model.patience <= stale:
            return None
        return f"it learned enough: {stale} scores in a row were no better than the best one (model.patience)"

    def discard_scores(self) -> None:
        self.early_stopping.reset()

    def export(self) -> ImagePrior:
        with torch.device("meta"):
            whole = ImagePrior(self.model, self.autoencoder, self.context.image, self.context.classes)
        whole.prior = cast(PriorTransformer, self.averages["prior"].module)
        return whole.eval()


class _EarlyStopping(TrainingState):
    """The best score so far, and the number of consecutive scores that did not improve on it."""

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
