"""The training loop, for every recipe.

Progress is counted in images. Every random number comes from (seed, images_seen), so a run that was stopped at any
moment goes on from its last save as if nothing had happened, bit for bit on the same machine.
Several processes started by torchrun share each batch; rank 0 writes.
"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from smalti import __version__, checkpoint
from smalti.config import RunConfig
from smalti.data import PackedImages
from smalti.data.pictures import grid, side_by_side, write_png
from smalti.errors import ConfigError, DataError, TrainingError
from smalti.layers.randomness import mix
from smalti.layers.ranks import barrier, rank, sum_over_ranks, world
from smalti.pixels import to_pixels, to_tensor
from smalti.recipes import Images, Recipe, Score, Setting, build_recipe
from smalti.runfolder import RunFolder

SCORE_IMAGES = 512
PREVIEW_IMAGES = 64
MAX_ROLLBACKS = 5


class Reporter(Protocol):
    """What the loop tells somebody who watches."""

    def start(self, images_seen: int, total: int) -> None: ...
    def progress(self, images_seen: int, record: dict[str, Any]) -> None: ...
    def message(self, text: str) -> None: ...
    def finish(self) -> None: ...


class Silent:
    """Tells nobody anything."""

    def start(self, images_seen: int, total: int) -> None: ...
    def progress(self, images_seen: int, record: dict[str, Any]) -> None: ...
    def message(self, text: str) -> None: ...
    def finish(self) -> None: ...


@dataclass(frozen=True)
class Machine:
    """Where and how a training runs; none of this changes what is trained, only its speed and last digits."""

    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"  # auto, float32, bfloat16
    compile: bool = False

    def resolve(self) -> tuple[torch.device, str]:
        """The device, and the precision it is good at.

        Raises:
            ConfigError: a device or a precision that is not there.
        """
        name = self.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
            if device.type == "cuda" and device.index is None:
                device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"the device {name!r} cannot be used ({str(error).splitlines()[0]}); try --device cpu") from None
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"precision is {self.precision!r}, but must be auto, float32 or bfloat16")
        precision = self.precision
        if precision == "auto":
            precision = "bfloat16" if fast_bfloat16(device) else "float32"
        return device, precision


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bf16 itself rather than emulating it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


@dataclass
class Progress:
    """How far a run is; saved with the resume state."""

    images_seen: int = 0
    seconds: float = 0.0  # wall clock in the loop, over all sessions
    rollbacks: int = 0
    best: float | None = None
    precision: str = ""
    fingerprint: str = ""
    score: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """How a training ended: `finished`, `budget` (time is up) or `stopped` (a signal)."""

    reason: str
    images_seen: int
    seconds: float
    folder: Path
    score: dict[str, Any]
    signal: int = 0  # the number of the signal that stopped it


def train(
    config: RunConfig,
    data: PackedImages,
    out: str | Path,
    *,
    held_out: PackedImages | None = None,
    machine: Machine | None = None,
    budget_seconds: float | None = None,
    on_nan: str = "stop",
    license: str = checkpoint.DEFAULT_LICENSE,
    reporter: Reporter | None = None,
) -> Result:
    """Train, or go on training, in a folder.

    Args:
        config: what to train; `config.train.images` is where it ends.
        data: the training images.
        out: the run's folder; one that already holds this run is resumed.
        held_out: images for scores and previews; without them the training images are used, and the log says so.
        machine: device, precision, compilation.
        budget_seconds: end after this much wall clock in the loop, counted over all sessions of the run.
        on_nan: "stop", or "rollback" to the last save with halved learning rates, at most five times.
        license: of the weights, written on their card.
        reporter: is told about the progress.

    Raises:
        ConfigError, DataError: settings that do not fit the data or the machine.
        OutputError: the folder holds another run or cannot be written.
        TrainingError: a loss became NaN or infinite.
    """
    machine, reporter = machine or Machine(), reporter or Silent()
    device, precision = machine.resolve()
    batch_size = config.train.batch
    _check(config, data, on_nan)
    setting = Setting(data.shape, len(data.classes), device, precision)
    folder = RunFolder(out)
    if rank() == 0:
        folder.claim(config)
        folder.clean()
    barrier()

    progress = Progress(precision=precision, fingerprint=data.fingerprint)
    resuming = folder.state.exists()
    if resuming:
        state = checkpoint.load_state(folder.state, device)
        progress = Progress(**state["progress"])
        if progress.fingerprint != data.fingerprint:
            raise DataError(
                f"the images of {data.source} are not those {folder.path} was trained on "
                f"(fingerprint {data.fingerprint[:12]}, expected {progress.fingerprint[:12]}); give --out a new folder"
            )
        if machine.precision == "auto":
            setting = dataclasses.replace(setting, precision=progress.precision)
        elif progress.precision != precision:
            reporter.message(f"going on in {precision}, after {progress.precision}: the result will differ in its digits")
            progress.precision = precision
    recipe = build_recipe(config, setting)
    saver = _Saver(folder, config, data, recipe, license)
    if resuming:
        recipe.load_state_dict(state["recipe"])
        if rank() == 0:
            folder.rewind_log(progress.images_seen)
        reporter.message(f"resuming {folder.path} at {progress.images_seen:,} images")
        del state
    if machine.compile:
        recipe.compile()
    watch = held_out if held_out is not None else data
    where = "held-out" if held_out is not None else "training"
    saver.log(progress, event="resume" if resuming else "start", version=__version__, torch=torch.__version__,
              device=str(device), precision=setting.precision, ranks=world(), threads=torch.get_num_threads())  # fmt: skip
    if not resuming:
        saver.save(progress)  # so that a full disk is noticed now, and there is always a save to go back to

    pending: list[dict[str, Tensor]] = []  # losses of the steps since the last look, still on the device
    session_start, seconds_before = time.monotonic(), progress.seconds
    logged_at = (progress.images_seen, session_start)
    reason = "finished"
    reporter.start(progress.images_seen, config.train.images)
    with _StopSignals() as stop:
        while progress.images_seen < config.train.images:
            recipe.draw_seed = mix(config.train.seed, progress.rollbacks)
            batch = _batch(data, recipe.draw_seed, progress.images_seen, batch_size, config.data.flip, device)
            pending.append(recipe.step(batch, progress.images_seen))
            before, progress.images_seen = progress.images_seen, progress.images_seen + batch_size
            progress.seconds = seconds_before + time.monotonic() - session_start

            def due(every: int, before: int = before) -> bool:
                return progress.images_seen // every > before // every  # noqa: B023

            over = budget_seconds is not None and progress.seconds >= budget_seconds
            last = progress.images_seen >= config.train.images
            looking = last or due(config.train.log_every) or due(config.train.save_every)
            if world() > 1:
                # Ranks may hear a signal at different steps; at a look they agree.
                ending = looking and bool(sum_over_ranks(torch.tensor([float(bool(stop.asked) or over)], device=device)))
            else:
                ending = bool(stop.asked) or over
            if not (looking or ending):
                continue

            problem, terms = _look(pending, progress.images_seen, batch_size)
            saving = last or ending or due(config.train.save_every)
            if saving and not problem and not _finite(recipe):
                problem = f"the weights became infinite by {progress.images_seen:,} images"
            if problem:
                saver.log(progress, event="diverged", problem=problem)
                if on_nan == "stop" or progress.rollbacks >= MAX_ROLLBACKS:
                    reporter.finish()
                    raise TrainingError(_diverged(problem, folder, progress, on_nan))
                _roll_back(recipe, folder, progress, device)
                saver.log(progress, event="rollback", rollbacks=progress.rollbacks)
                reporter.message(f"{problem}; back to {progress.images_seen:,} images, learning rates halved")
                pending.clear()
                logged_at = (progress.images_seen, time.monotonic())
                continue
            now = time.monotonic()
            rate = (progress.images_seen - logged_at[0]) / max(now - logged_at[1], 1e-9)
            pending.clear()
            logged_at = (progress.images_seen, now)
            record = saver.log(progress, seconds=round(progress.seconds, 3), images_per_second=round(rate, 1), **terms)
            reporter.progress(progress.images_seen, record)
            if rank() == 0 and (last or due(config.train.preview_every)):
                saver.preview(progress, _some(watch, PREVIEW_IMAGES, device))
            if saving:
                score = recipe.score(_slices(watch, SCORE_IMAGES, batch_size, device))
                saver.keep(progress, score, where)
                saver.save(progress)
            if ending and not last:
                reason = "stopped" if stop.asked else "budget"
                break
    reporter.finish()
    barrier()
    folder.release()
    return Result(reason, progress.images_seen, progress.seconds, folder.path, progress.score, stop.asked)


class _Saver:
    """Everything a run writes; on ranks other than 0 it writes nothing."""

    def __init__(self, folder: RunFolder, config: RunConfig, data: PackedImages, recipe: Recipe, license: str) -> None:
        self.folder, self.config, self.data, self.recipe, self.license = folder, config, data, recipe, license
        self.tensorboard: Any = None
        if rank() == 0:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:  # an extra; the JSONL log is always there
                return
            self.tensorboard = SummaryWriter(str(folder.path / "tensorboard"), purge_step=None)

    def log(self, progress: Progress, **entries: Any) -> dict[str, Any]:
        record = {"images_seen": progress.images_seen, **entries}
        if rank() == 0:
            self.folder.append(record)
            if self.tensorboard is not None:
                for name, value in entries.items():
                    if isinstance(value, int | float):
                        self.tensorboard.add_scalar(name, value, progress.images_seen)
        return record

    def preview(self, progress: Progress, images: Images) -> None:
        pictures = {name: to_pixels(value) for name, value in self.recipe.preview(images).items()}
        first, *rest = pictures.values()
        sheet = side_by_side(first, rest[0]) if rest else grid(first)
        path = self.folder.path / "previews" / f"{progress.images_seen:010d}.png"
        write_png(path, sheet, {"smalti": f"{self.recipe.kind} preview, {progress.images_seen} images seen"})

    def keep(self, progress: Progress, score: Score, where: str) -> None:
        """Note the score, and keep the weights if they are the best so far."""
        progress.score = {"name": score.name, "value": score.value, "on": where, "images": min(SCORE_IMAGES, self.watched)}
        self.log(progress, event="score", **progress.score)
        better = progress.best is None or (
            score.value > progress.best if score.larger_is_better else score.value < progress.best
        )
        if better and math.isfinite(score.value):
            progress.best = score.value
            if rank() == 0:
                checkpoint.write(self.folder.best, self.recipe.export(), self.card(progress))

    def save(self, progress: Progress) -> None:
        """The weights and the resume state. The state comes last: what it says has been written, has been."""
        if rank() == 0:
            checkpoint.write(self.folder.last, self.recipe.export(), self.card(progress))
            state = {"progress": dataclasses.asdict(progress), "recipe": self.recipe.state_dict()}
            checkpoint.save_state(self.folder.state, state)
            if self.tensorboard is not None:
                self.tensorboard.flush()
        barrier()

    def card(self, progress: Progress) -> checkpoint.Card:
        return checkpoint.Card(
            kind=self.recipe.kind,
            config=self.config,
            image=self.data.shape,
            classes=self.data.classes,
            images_seen=progress.images_seen,
            data={
                "source": Path(self.data.source).name,
                "split": self.data.split,
                "fingerprint": self.data.fingerprint,
                "images": len(self.data),
            },
            license=self.license,
            score=progress.score,
        )


class _StopSignals:
    """Ctrl-C and SIGTERM end the loop after its step; a second one ends the process as usual."""

    asked = 0  # the signal's number

    def __enter__(self) -> _StopSignals:
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        signal.signal(number, self._previous[number])

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _batch(data: PackedImages, seed: int, images_seen: int, count: int, flip: bool, device: torch.device) -> Images:
    """This rank's share of the batch that begins at `images_seen`."""
    share = count // world()
    batch = data.batch(seed, images_seen + rank() * share, share, flip=flip)
    labels = None if batch.labels is None else torch.from_numpy(batch.labels).to(device)
    return Images(to_tensor(batch.images, device), labels)


def _some(data: PackedImages, count: int, device: torch.device) -> Images:
    """Evenly spread images of a set, the same ones each time."""
    indices = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(np.int64)
    labels = None if data.labels is None else torch.from_numpy(np.asarray(data.labels)[indices]).to(device)
    return Images(to_tensor(np.ascontiguousarray(data.images[indices]), device), labels)


def _slices(data: PackedImages, count: int, batch: int, device: torch.device) -> Iterator[Images]:
    whole = _some(data, count, device)
    for start in range(0, len(whole.pixels), batch):
        labels = None if whole.labels is None else whole.labels[start : start + batch]
        yield Images(whole.pixels[start : start + batch], labels)


def _look(pending: list[dict[str, Tensor]], images_seen: int, batch: int) -> tuple[str | None, dict[str, float]]:
    """What went wrong in the steps since the last look, or None; and the mean of every term over them."""
    names = list(pending[0])
    values = torch.stack([torch.stack([terms[name].float() for name in names]) for terms in pending])
    values = (sum_over_ranks(values) / world()).cpu()
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        step, term = (int(index) for index in bad[0])
        at = images_seen - (len(pending) - step) * batch
        return f"{names[term]} became {float(values[step, term])} in the step at {at:,} images (step {at // batch:,})", {}
    return None, {name: round(float(v), 6) for name, v in zip(names, values.double().mean(dim=0), strict=True)}


def _finite(recipe: Recipe) -> bool:
    tensors = [tensor for module in recipe.modules.values() for tensor in module.state_dict().values()]
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def _roll_back(recipe: Recipe, folder: RunFolder, progress: Progress, device: torch.device) -> None:
    """Return to the last save, with other random numbers and half the learning rates, or it would happen again."""
    state = checkpoint.load_state(folder.state, device)
    recipe.load_state_dict(state["recipe"])
    saved = Progress(**state["progress"])
    progress.rollbacks += 1
    recipe.scale_learning_rates(0.5 ** (progress.rollbacks - saved.rollbacks))
    progress.images_seen, progress.best, progress.score = saved.images_seen, saved.best, saved.score


def _diverged(problem: str, folder: RunFolder, progress: Progress, on_nan: str) -> str:
    remedy = (
        f"it did so after {progress.rollbacks} rollbacks; lower the learning rates with --set"
        if on_nan == "rollback"
        else "go on from there with --on-nan rollback, or lower the learning rates with --set"
    )
    saved = checkpoint.read_card(folder.last).images_seen
    return f"{problem}; the last good checkpoint is {folder.last} at {saved:,} images; {remedy}"


def _check(config: RunConfig, data: PackedImages, on_nan: str) -> None:
    if on_nan not in ("stop", "rollback"):
        raise ConfigError(f"--on-nan is {on_nan!r}, but must be stop or rollback")
    if config.train.batch % world():
        raise ConfigError(f"train.batch is {config.train.batch}, which {world()} ranks cannot share evenly")
    if len(data) < 2:
        raise DataError(f"{data.source} holds {len(data)} image; a training needs at least 2")


def start_ranks(device_type: str) -> None:
    """Join the group that torchrun describes in the environment; a single process needs none."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device_type == "cuda" else "gloo")


def end_ranks() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
