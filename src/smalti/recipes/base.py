"""What an algorithm is to the training loop.

A recipe owns its modules, optimizers and averages; the loop calls `step` and never learns how many there are.
Tensors inside are float32 NCHW in [-1, 1]; the networks run under the autocast of `TrainingContext.autocast`.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from smalti.checkpoint.file import Card
from smalti.config.optimizer import OptimizerConfig
from smalti.config.run import RunConfig
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.optim.build import build_optimizer, descend, rate_factor
from smalti.optim.ema import WeightAverage
from smalti.runtime.rng import mix
from smalti.runtime.state import TrainingState

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Images:
    """A batch on the device: (B, C, H, W) float32 in [-1, 1], labels (B,) int64 or None."""

    pixels: Tensor
    labels: Tensor | None = None


@dataclass(frozen=True)
class Codes:
    """A batch of codes on the device: (B, P, h, w) int64, labels (B,) int64 or None, captions or None."""

    codes: Tensor
    labels: Tensor | None = None
    captions: list[str] | None = None


Batch = TypeVar("Batch", Images, Codes)
State = TypeVar("State", bound=TrainingState)


@dataclass(frozen=True)
class Tokenizer:
    """What codes were written by: a trained autoencoder on the device, in eval mode, and its card."""

    module: Autoencoder
    card: Card


@dataclass(frozen=True)
class TrainingContext:
    """Where and for what a recipe runs.

    Attributes:
        image: (channels, height, width) of the data.
        classes: number of labels in the data, 0 without.
        precision: "float32" or "bfloat16"; weights are float32 with both.
        count: how many images there are to train on; None: always new ones.
        tokenizer: of the codes, where the data is codes.
        captions: whether there are any.
    """

    image: tuple[int, int, int]
    classes: int = 0
    device: torch.device = CPU
    precision: str = "float32"
    count: int | None = None
    tokenizer: Tokenizer | None = None
    captions: bool = False

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context the networks run in."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


@dataclass(frozen=True)
class Score:
    """One figure on held-out images that decides which checkpoint is the best; its name says what it is."""

    name: str
    value: float
    larger_is_better: bool


class Recipe(ABC, Generic[Batch]):
    """One training algorithm. Subclasses fill `modules`, `states`, `optimizers` and `averages` in `__init__`."""

    kind: str  # the word in configurations and checkpoints
    headline: tuple[str, ...]  # the logged terms that somebody who watches wants to see
    rollback_effect: str = "half the learning rate"  # what `on_rollback` does
    score_images = 512  # held-out images that `score` is given

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        self.config, self.context = config, context
        self.modules: dict[str, nn.Module] = {}
        self.states: dict[str, TrainingState] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.schedules: dict[str, OptimizerConfig] = {}  # how the optimizers' learning rates go
        self.averages: dict[str, WeightAverage] = {}
        self.horizon = config.train.images  # when schedules have run out; earlier if a time limit ends the training
        self.extra_batch: Callable[[], Batch] | None = None  # gives a step more images, as many, of another order
        self.draw_seed = config.train.seed  # changed by a rollback, so that the same step is not drawn again

    def start(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Before the first step of a new training: fit to some of the images what is not learned by steps.

        Args:
            batches: gives the same random training images, a batch at a time, on every rank and at every call.
        """

    @abstractmethod
    def step(self, batch: Batch, images_seen: int) -> dict[str, Tensor]:
        """Train on this rank's share of one batch; returns scalars to log, detached."""

    @abstractmethod
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Pictures to look at, by name: (N, C, H, W) in [-1, 1], from the averaged weights."""

    @abstractmethod
    def score(self, batches: Iterable[Batch]) -> Score:
        """One figure on held-out images, from the averaged weights."""

    @abstractmethod
    def export(self) -> nn.Module:
        """The module a user keeps: the averaged weights, in eval mode."""

    def add_module(self, name: str, module: nn.Module) -> nn.Module:
        """Take a module in: on its device, channels last, trained."""
        module = module.to(self.context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules[name] = module.train()
        return module

    def add_state(self, name: str, state: State) -> State:
        """Take tensors in that are saved and resumed beside the networks."""
        self.states[name] = state.to(self.context.device)
        return state

    def add_optimizer(self, name: str, module: nn.Module, config: OptimizerConfig) -> None:
        self.optimizers[name] = build_optimizer(module, config, getattr(torch, self.context.precision))
        self.schedules[name] = config

    def descend(self, name: str, loss: Tensor, images_seen: int) -> None:
        """One update by the optimizer of that name, at the learning rate that its schedule has by now."""
        factor = rate_factor(self.schedules[name], images_seen + self.config.train.batch, self.horizon)
        with self.learning_rates_times(factor):
            descend(self.optimizers[name], loss)

    def add_average(self, name: str) -> None:
        self.averages[name] = WeightAverage(self.modules[name], self.config.train.ema_half_life)

    def update_averages(self, images_seen: int) -> None:
        """After a step; `images_seen` is the count before it."""
        batch = self.config.train.batch
        for name, average in self.averages.items():
            average.update(self.modules[name], batch=batch, images_seen=images_seen + batch)

    def advice(self, terms: Mapping[str, float], images_seen: int) -> str | None:
        """What is wrong with the training and what to try, in a line for people; None while all is well.

        It is passed on once for what its words before the colon say.

        Args:
            terms: the means of what `step` returned since the last look.
        """
        return None

    def diagnostics(self, *, remember: bool = True) -> tuple[dict[str, float], str | None]:
        """At every regular look: more figures for the log, and what has gone so wrong that going on would be a waste.

        Args:
            remember: take in what is seen, into `state_dict`. Not where a training is stopped between two looks: one
                that is resumed there shall remember the same as one that was never stopped.
        """
        return {}, None

    def should_stop(self) -> str | None:
        """Why to train on would make it worse, though nothing has gone wrong; None while it would not.

        It is asked at the beginning, and at every regular save after `check_score`.
        """
        return None

    def check_score(self, score: Score) -> str | None:
        """The same about a score, at every regular save; None if nothing is wrong."""
        return None

    def discard_scores(self) -> None:
        """From now on others are scored than before: what was measured on those does not compare."""

    def on_rollback(self) -> None:
        """After going back to an earlier place: go on from there more carefully."""
        self.scale_learning_rates(0.5)

    def compile(self) -> None:
        """Let torch.compile fuse each module's forward and backward."""
        for module in self.modules.values():
            module.compile()

    def scale_learning_rates(self, factor: float) -> None:
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] *= factor

    @contextlib.contextmanager
    def learning_rates_times(self, factor: float) -> Iterator[None]:
        """Learning rates inside are scaled, for a warm-up or a schedule; after it they are what they were."""
        groups = [group for optimizer in self.optimizers.values() for group in optimizer.param_groups]
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= factor
        yield
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def tensors(self) -> list[Tensor]:
        """All weights, buffers and states, those of the averages too."""
        modules = [*self.modules.values(), *(average.module for average in self.averages.values())]
        found = [tensor for module in modules for tensor in module.state_dict().values()]
        return found + [tensor for state in self.states.values() for tensor in state.state_dict().values()]

    def finite(self) -> bool:
        """Whether all weights, buffers and states are finite, but for those of the averages."""
        networks = [tensor for module in self.modules.values() for tensor in module.state_dict().values()]
        rest = [tensor for state in self.states.values() for tensor in state.state_dict().values()]
        return all(bool(tensor.isfinite().all()) for tensor in networks + rest)

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on, as tensors and plain values."""
        return {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "states": {name: state.state_dict() for name, state in self.states.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "averages": {name: average.module.state_dict() for name, average in self.averages.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, values in self.states.items():
            values.load_state_dict(state["states"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, average in self.averages.items():
            average.module.load_state_dict(state["averages"][name])


@contextlib.contextmanager
def initial_weights(seed: int) -> Any:
    """Modules built inside get weights that depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(seed, 1))
        yield
