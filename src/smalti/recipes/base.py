"""Interface between a training algorithm and the training loop.

A recipe owns its modules, optimizers and EMA weights; the loop only calls `step` and does not depend on their number.
Images are float32 NCHW in [-1, 1]; the networks run under `TrainingContext.autocast`.
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
from smalti.data.dataset import Dataset
from smalti.data.spec import CodeSpec, ImageSpec, Spec
from smalti.errors import ConfigError, DataError
from smalti.optim.build import build_optimizer, descend, rate_factor
from smalti.optim.ema import WeightAverage
from smalti.runtime.rng import mix
from smalti.runtime.state import TrainingState

CPU = torch.device("cpu")
_PLURAL = {"image": "images"}


Batch = TypeVar("Batch")
State = TypeVar("State", bound=TrainingState)


@dataclass(frozen=True)
class Tokenizer:
    """The model whose codes are learned: the trained network, in eval mode, and its card."""

    module: nn.Module
    card: Card

    def to(self, device: torch.device) -> Tokenizer:
        """The same on a device, channels last."""
        module = self.module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Tokenizer(module, self.card)


@dataclass(frozen=True)
class TrainingContext:
    """The data and the device that a recipe is built for.

    Attributes:
        spec: kind and shape of one example.
        classes: number of classes in the data, 0 without labels.
        precision: "float32" or "bfloat16"; weights are float32 with both.
        count: number of training images; None: unlimited.
        tokenizer: of the codes, if the data is codes or the recipe learns those of images.
        captions: whether the data has captions.
    """

    spec: Spec
    classes: int = 0
    device: torch.device = CPU
    precision: str = "float32"
    count: int | None = None
    tokenizer: Tokenizer | None = None
    captions: bool = False

    @property
    def image(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images, or of the images that the codes encode."""
        spec = self.spec.image if isinstance(self.spec, CodeSpec) else self.spec
        assert isinstance(spec, ImageSpec)
        return spec.shape

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The autocast context that the networks run in."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


@dataclass(frozen=True)
class Score:
    """The figure on the held-out set that selects the best checkpoint."""

    name: str
    value: float
    larger_is_better: bool


class Recipe(ABC, Generic[Batch]):
    """Base class of the training algorithms.

    Subclasses fill `modules`, `states`, `optimizers` and `averages` in `__init__`.
    """

    kind: str  # its key in the registry of kinds
    data: type[Spec] = ImageSpec  # spec of the datasets that it trains on
    headline: tuple[str, ...]  # the logged terms that a progress bar shows
    monitors_collapse = False  # if true, NaN and infinite values are handled like a collapse by default
    rollback_effect: str = "half the learning rate"  # describes `on_rollback` in messages
    can_start_from = False  # whether it can start from the weights of a trained model
    score_images = 512  # number of held-out images that `score` receives

    def __init__(self, config: RunConfig, context: TrainingContext) -> None:
        self.config, self.context = config, context
        self.modules: dict[str, nn.Module] = {}
        self.states: dict[str, TrainingState] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.schedules: dict[str, OptimizerConfig] = {}  # learning-rate schedules of the optimizers
        self.averages: dict[str, WeightAverage] = {}
        self.horizon = config.train.images  # images at the end of the schedules; fewer with a time budget
        self.extra_batch: Callable[[], Batch] | None = None  # gives an independent second batch in a step
        self.draw_seed = config.train.seed  # changed by a rollback, so that the retry gets other random numbers

    @classmethod
    def check_data(cls, config: RunConfig, data: Dataset, held_out: Dataset | None) -> None:
        """Check that the recipe can train on this data, and be scored on the held-out set, with these settings.

        Raises:
            ConfigError, DataError: it cannot.
        """
        if not isinstance(data.spec, cls.data):
            raise ConfigError(
                f"{data.source} holds {_PLURAL.get(data.spec.kind, data.spec.kind)}, but the recipe {config.recipe} "
                f"learns {_PLURAL.get(cls.data.kind, cls.data.kind)}"
            )
        if held_out is not None and held_out.spec != data.spec:
            raise DataError(
                f"the held-out {_PLURAL.get(held_out.spec.kind, held_out.spec.kind)} have the shape "
                f"{held_out.spec.shape}, those to train on {data.spec.shape}"
            )

    @classmethod
    def context_for(cls, data: Dataset, device: torch.device, precision: str) -> TrainingContext:
        """The training context for a dataset."""
        return TrainingContext(data.spec, len(data.classes), device, precision, len(data))

    @property
    def output_spec(self) -> Spec:
        """Spec of what the exported model generates, or takes as input; stored in the checkpoint's card."""
        return self.context.spec

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer that the exported model includes, or None."""
        return self.context.tokenizer

    @abstractmethod
    def to_device(self, batch: Any) -> Batch:
        """Convert a batch of the dataset to the form that `step` takes, on the device."""

    def fitting_batches(self, data: Dataset, seed: int) -> Iterable[Any]:
        """The batches for `start`, before `to_device`: the same for every call and on every rank."""
        return ()

    def start(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Data-dependent initialisation, before the first step of a new training.

        Args:
            batches: returns the batches of `fitting_batches`, the same for every call and on every rank.
        """

    def start_from(self, model: nn.Module) -> None:
        """Start a new training from the weights of a trained model of the same kind, in place of `start`.

        Raises:
            RuntimeError: it has other networks.
        """
        self.export().load_state_dict(model.state_dict())
        for name, average in self.averages.items():
            self.modules[name].load_state_dict(average.module.state_dict())

    @abstractmethod
    def step(self, batch: Batch, images_seen: int) -> dict[str, Tensor]:
        """One training step on this rank's share of a batch; returns detached scalars to log."""

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Preview images by name, (N, C, H, W) in [-1, 1], from the EMA weights; {} for data other than images."""
        return {}

    @abstractmethod
    def score(self, batches: Iterable[Batch]) -> Score:
        """The score of the EMA weights on the held-out set."""

    @abstractmethod
    def export(self) -> nn.Module:
        """The trained model for inference: EMA weights, in eval mode."""

    def add_module(self, name: str, module: nn.Module) -> nn.Module:
        """Register a module: moved to the device, channels last, in train mode."""
        module = module.to(self.context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules[name] = module.train()
        return module

    def add_state(self, name: str, state: State) -> State:
        """Register tensors that are saved and resumed together with the networks."""
        self.states[name] = state.to(self.context.device)
        return state

    def add_optimizer(self, name: str, module: nn.Module, config: OptimizerConfig) -> None:
        """Create and register an optimizer of a module's parameters, with its learning-rate schedule."""
        self.optimizers[name] = build_optimizer(module, config, getattr(torch, self.context.precision))
        self.schedules[name] = config

    def descend(self, name: str, loss: Tensor, images_seen: int) -> None:
        """One optimizer step on a loss, at the current learning rate of the schedule."""
        factor = rate_factor(self.schedules[name], images_seen + self.config.train.batch, self.horizon)
        with self.learning_rates_times(factor):
            descend(self.optimizers[name], loss)

    def add_average(self, name: str) -> None:
        """Register EMA weights of a module, initialised from its current weights."""
        self.averages[name] = WeightAverage(self.modules[name], self.config.train.ema_half_life)

    def update_averages(self, images_seen: int) -> None:
        """Update the EMA weights after a step; `images_seen` is the count before the step."""
        batch = self.config.train.batch
        for name, average in self.averages.items():
            average.update(self.modules[name], batch=batch, images_seen=images_seen + batch)

    def advice(self, terms: Mapping[str, float], images_seen: int) -> str | None:
        """Advice to the user about a problem that does not stop the training, "topic: advice"; None without a problem.

        Each topic is reported once.

        Args:
            terms: means of the logged scalars since the last log record.
        """
        return None

    def diagnostics(self, *, remember: bool = True) -> tuple[dict[str, float], str | None]:
        """Extra figures to log, and a message if the training has collapsed, else None.

        Args:
            remember: whether the check may update `state_dict`. False for an unscheduled check, which must not change
                resumable state: a resumed run has to match one that was never interrupted.
        """
        return {}, None

    def should_stop(self) -> str | None:
        """The reason for early stopping, or None to continue.

        Called before the first step, and at every scheduled save after `check_score`.
        """
        return None

    def check_score(self, score: Score) -> str | None:
        """A message if the score shows that the training has collapsed, else None. Called at every scheduled save."""
        return None

    def discard_scores(self) -> None:
        """The held-out set changed: earlier scores are discarded."""

    def on_rollback(self) -> None:
        """Make the training more stable after a rollback; here by halving the learning rates."""
        self.scale_learning_rates(0.5)

    def compile(self) -> None:
        """Compile each module with torch.compile."""
        for module in self.modules.values():
            module.compile()

    def scale_learning_rates(self, factor: float) -> None:
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] *= factor

    @contextlib.contextmanager
    def learning_rates_times(self, factor: float) -> Iterator[None]:
        """Context in which all learning rates are multiplied by a factor, for a warm-up or a schedule."""
        groups = [group for optimizer in self.optimizers.values() for group in optimizer.param_groups]
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= factor
        yield
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def tensors(self) -> list[Tensor]:
        """All weights, buffers and states, including the EMA weights."""
        modules = [*self.modules.values(), *(average.module for average in self.averages.values())]
        found = [tensor for module in modules for tensor in module.state_dict().values()]
        return found + [tensor for state in self.states.values() for tensor in state.state_dict().values()]

    def finite(self) -> bool:
        """Whether all weights, buffers and states are finite, not counting the EMA weights."""
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
        """Load what `state_dict` returned.

        Raises:
            KeyError, RuntimeError, ValueError: it is of other networks.
        """
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, values in self.states.items():
            values.load_state_dict(state["states"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, average in self.averages.items():
            average.module.load_state_dict(state["averages"][name])


def check_same_classes(data: Dataset, held_out: Dataset) -> None:
    """Raise DataError if the held-out set has other classes than the training set."""
    if held_out.classes != data.classes:
        raise DataError(
            f"the held-out images have the classes {', '.join(held_out.classes) or 'none'}, those to train on "
            f"{', '.join(data.classes) or 'none'}; a model with labels needs the same ones"
        )


@contextlib.contextmanager
def initial_weights(seed: int) -> Any:
    """Context in which new modules get weights that depend only on the seed; the global generator is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(seed, 1))
        yield
