"""SimCLR: features learned without labels, by matching two random views of the same image.

    1  a, b = two random views of each image                    (augment/simclr.py)
    2  z = P(f(.)) of both, one batch of 2B through encoder f and projector P
    3  f and P minimise NT-Xent(z_a, z_b)                        (losses/contrastive.py)

The projector is discarded after training; the features are those of the encoder.
Source: Chen et al. 2020, arXiv:2002.05709.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smalti.augment.simclr import random_views
from smalti.config.contrastive import ContrastiveConfig
from smalti.config.run import RunConfig
from smalti.errors import ConfigError
from smalti.losses.contrastive import nt_xent
from smalti.models.vision_transformer import VisionTransformer
from smalti.nn.blocks import BatchNorm2d
from smalti.recipes.base import Score, TrainingContext, initial_weights
from smalti.recipes.images import ImageRecipe, Images
from smalti.runtime.distributed import all_reduce_sum, world
from smalti.runtime.rng import Draws

NEIGHBOURS = 10  # k of the k-nearest-neighbour score


class Projector(nn.Module):
    """Projection head, from features to the embeddings that the loss compares: Linear, BN, ReLU, Linear."""

    def __init__(self, width: int, projection: int) -> None:
        super().__init__()
        self.widen = nn.Linear(width, width, bias=False)
        self.norm = BatchNorm2d(width)
        self.narrow = nn.Linear(width, projection)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.norm(self.widen(features)[:, :, None, None]).flatten(1)
        return self.narrow(F.relu(hidden))


class ContrastiveRecipe(ImageRecipe):
    """Modules: `encoder`, `projector`.

    Logs: loss, accuracy (fraction of views whose nearest neighbour is the other view of the same image), spread (of the
    feature directions).
    """

    kind = "contrastive"
    can_start_from = True
    headline = ("loss", "accuracy")

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        super().__init__(config, context)
        self.model = cast(ContrastiveConfig, config.model)
        if config.train.batch < 2:
            raise ConfigError("train.batch is 1, but a contrastive training compares images and needs 2 or more")
        with initial_weights(config.train.seed):
            encoder = VisionTransformer(self.model.encoder, context.image)
            projector = Projector(encoder.dimension, self.model.projection)
        self.encoder = cast(VisionTransformer, self.add_module("encoder", encoder))
        self.projector = cast(Projector, self.add_module("projector", projector))
        self.add_optimizer("both", nn.ModuleList([self.encoder, self.projector]), self.model.optimizer)
        self.add_average("encoder")

    def step(self, batch: Images, images_seen: int) -> dict[str, Tensor]:
        draws = Draws(self.draw_seed, images_seen, device=self.context.device)
        views = [self._view(batch.pixels, draws) for _ in range(2)]
        inputs = torch.cat(views).contiguous(memory_format=torch.channels_last)
        with self.context.autocast():
            features = self.encoder(inputs)
            embeddings = self.projector(features)
        loss, accuracy = nt_xent(*embeddings.chunk(2), temperature=self.model.temperature)
        warm_up = min(1.0, (images_seen + self.config.train.batch) / max(self.model.warm_up, 1))
        with self.learning_rates_times(warm_up):
            self.descend("both", loss, images_seen)
        self.update_averages(images_seen)
        with torch.no_grad():
            # 1 if the directions of the features are uniformly distributed, 0 if all images have the same one.
            mean = all_reduce_sum(F.normalize(features.float(), dim=1).mean(dim=0)) / world()
            spread = 1 - mean.square().sum()
        return {"loss": loss.detach(), "accuracy": accuracy, "spread": spread}

    @torch.no_grad()
    def preview(self, batch: Images) -> dict[str, Tensor]:
        """Each image with its nearest neighbour among the others, by the cosine similarity of features."""
        nearest = _similarities(self._features(batch.pixels)).argmax(dim=1)
        return {"image": batch.pixels, "nearest": batch.pixels[nearest]}

    @torch.no_grad()
    def score(self, batches: Iterable[Images]) -> Score:
        """k-NN accuracy among the held-out images (leave-one-out); without labels, the accuracy of matching views."""
        results = [(self._features(b.pixels), b.labels, self._match(b, number)) for number, b in enumerate(batches)]
        labels = [b for _, b, _ in results if b is not None]
        features = torch.cat([f for f, _, _ in results])
        if not labels or len(features) <= NEIGHBOURS:
            matched = sum(float(m) * len(f) for f, _, m in results) / len(features)
            return Score("view_accuracy", matched, larger_is_better=True)
        votes = torch.cat(labels)[_similarities(features).topk(NEIGHBOURS, dim=1).indices]
        predicted = torch.mode(votes, dim=1).values
        accuracy = float((predicted == torch.cat(labels)).float().mean())
        return Score("neighbour_accuracy", accuracy, larger_is_better=True)

    def export(self) -> VisionTransformer:
        return cast(VisionTransformer, self.averages["encoder"].module)

    def _features(self, pixels: Tensor) -> Tensor:
        with self.context.autocast():
            return self.export()(pixels).float()

    def _view(self, pixels: Tensor, draws: Draws) -> Tensor:
        return random_views(pixels, draws, crop=self.model.crop, jitter=self.model.jitter, blur=self.model.blur)

    def _match(self, batch: Images, number: int) -> Tensor:
        """Fraction of views whose nearest neighbour is the other view of the image, by encoder features; ()."""
        draws = Draws(self.config.train.seed, number, device=self.context.device)
        views = [self._view(batch.pixels, draws) for _ in range(2)]
        _, accuracy = nt_xent(*(self._features(view) for view in views), temperature=self.model.temperature)
        return accuracy


def _similarities(features: Tensor) -> Tensor:
    """(N, D) -> (N, N) cosine similarities; the diagonal is -2, so that no image is its own neighbour."""
    directions = F.normalize(features, dim=1)
    return (directions @ directions.T).fill_diagonal_(-2.0)
