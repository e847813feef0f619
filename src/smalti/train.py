"""The training loop, for every recipe.

Progress is counted in images. Every random number comes from (seed, images_seen), so a run that was stopped at any
moment goes on from its last save as if nothing had happened, bit for bit on the same machine.
Several processes started by torchrun share each batch; rank 0 writes.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from smalti import __version__, checkpoint
from smalti.config import RunConfig
from smalti.data import PackedImages
from smalti.errors import ConfigError, DataError, TrainingError
from smalti.layers.randomness import mix
from smalti.layers.ranks import barrier, rank, sum_over_ranks, world
from smalti.machine import Machine
from smalti.pixels import to_tensor
from smalti.recipes import Images, Recipe, Setting, build_recipe
from smalti.runfolder import RunFolder
from smalti.saver import Progress, Saver

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
class Result:
    """How a training ended: `finished`, `budget` (time is up) or `stopped` (by a signal)."""

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
    _check(config, data, on_nan)
    device, precision = machine.resolve()
    batch_size, every = config.train.batch, config.train
    folder = RunFolder(out)
    if rank() == 0:
        folder.claim(config)
    barrier()
    try:
        progress, state = _find_place(folder, data, machine, precision, device, reporter)
        setting = Setting(data.shape, len(data.classes), device, progress.precision)
        recipe = build_recipe(config, setting)
        saver = Saver(folder, config, data, recipe, license)
        if state is not None:
            recipe.load_state_dict(state)
        if machine.compile:
            recipe.compile()
        saver.log(progress, event="start" if state is None else "resume", version=__version__,
                  torch=torch.__version__, device=str(device), precision=setting.precision, ranks=world(),
                  threads=torch.get_num_threads())  # fmt: skip
        if state is None:
            saver.save(progress)  # so that a full disk is noticed now, and there is always a save to go back to
        del state
        watch, where = (data, "training") if held_out is None else (held_out, "held-out")

        pending: list[dict[str, Tensor]] = []  # losses of the steps since the last look, still on the device
        clock = _Clock(progress)
        reason = "finished"
        reporter.start(progress.images_seen, every.images)
        with _StopSignals() as stop:
            while progress.images_seen < every.images:
                recipe.draw_seed = mix(every.seed, progress.rollbacks)
                batch = _batch(data, recipe.draw_seed, progress.images_seen, batch_size, config.data.flip, device)
                pending.append(recipe.step(batch, progress.images_seen))
                progress.images_seen += batch_size
                progress.seconds = clock.seconds()

                last = progress.images_seen >= every.images
                over = budget_seconds is not None and progress.seconds >= budget_seconds
                to_save = last or _due(progress.images_seen, batch_size, every.save_every)
                to_look = to_save or _due(progress.images_seen, batch_size, every.log_every)
                ending = _agree(bool(stop.asked) or over, to_look, device)
                if not (to_look or ending):
                    continue

                # From here on the host waits for the device: losses are read, and perhaps written.
                problem, terms = _look(pending, progress.images_seen, batch_size)
                if not problem and (to_save or ending) and not _finite(recipe):
                    problem = f"the weights became infinite by {progress.images_seen:,} images"
                if problem:
                    saver.log(progress, event="diverged", problem=problem)
                    if on_nan == "stop" or progress.rollbacks >= MAX_ROLLBACKS:
                        raise TrainingError(_diverged(problem, folder, progress, on_nan))
                    _roll_back(recipe, folder, progress, device)
                    saver.log(progress, event="rollback", rollbacks=progress.rollbacks)
                    reporter.message(f"{problem}; back to {progress.images_seen:,} images, learning rates halved")
                    pending.clear()
                    clock.lap(progress.images_seen)
                    continue
                pending.clear()
                rate = clock.lap(progress.images_seen)
                record = saver.log(progress, seconds=round(progress.seconds, 3), images_per_second=rate, **terms)
                reporter.progress(progress.images_seen, record)
                if last or _due(progress.images_seen, batch_size, every.preview_every):
                    saver.preview(progress, _some(watch, PREVIEW_IMAGES, device))
                if to_save or ending:
                    score = recipe.score(_slices(watch, SCORE_IMAGES, batch_size, device))
                    saver.keep(progress, score, where, min(SCORE_IMAGES, len(watch)))
                    saver.save(progress)
                if ending and not last:
                    reason = "stopped" if stop.asked or not over else "budget"
                    break
        barrier()
        saver.close()
        return Result(reason, progress.images_seen, progress.seconds, folder.path, progress.score, stop.asked)
    finally:
        reporter.finish()
        folder.release()


def _check(config: RunConfig, data: PackedImages, on_nan: str) -> None:
    if on_nan not in ("stop", "rollback"):
        raise ConfigError(f"--on-nan is {on_nan!r}, but must be stop or rollback")
    if config.train.batch % world():
        raise ConfigError(f"train.batch is {config.train.batch}, which {world()} ranks cannot share evenly")
    if len(data) < 2:
        raise DataError(f"{data.source} holds {len(data)} image; a training needs at least 2")


def _find_place(
    folder: RunFolder, data: PackedImages, machine: Machine, precision: str, device: torch.device, reporter: Reporter
) -> tuple[Progress, dict[str, Any] | None]:
    """The beginning, or where the folder's run stopped, with the recipe's state there."""
    if not folder.state.exists():
        return Progress(precision=precision, fingerprint=data.fingerprint), None
    state = checkpoint.load_state(folder.state, device)
    progress = Progress(**state["progress"])
    if progress.fingerprint != data.fingerprint:
        raise DataError(
            f"the images of {data.source} are not those {folder.path} was trained on "
            f"(fingerprint {data.fingerprint[:12]}, expected {progress.fingerprint[:12]}); give --out a new folder"
        )
    if machine.precision != "auto" and machine.precision != progress.precision:
        reporter.message(f"going on in {precision} after {progress.precision}: no longer the same to the last bit")
        progress.precision = precision
    if rank() == 0:
        folder.rewind_log(progress.images_seen)
    reporter.message(f"resuming {folder.path} at {progress.images_seen:,} images")
    return progress, state["recipe"]


def _due(images_seen: int, batch: int, every: int) -> bool:
    """Whether the step that ended at `images_seen` passed a multiple of `every`."""
    return images_seen // every > (images_seen - batch) // every


def _agree(ending: bool, looking: bool, device: torch.device) -> bool:
    """Whether to end now. Ranks may hear a signal at different steps, so several agree at a look."""
    if world() == 1:
        return ending
    return looking and bool(sum_over_ranks(torch.tensor(float(ending), device=device)))


class _Clock:
    """Wall clock in the loop: over all sessions for the budget, and since the last lap for the rate."""

    def __init__(self, progress: Progress) -> None:
        self.start = time.monotonic() - progress.seconds
        self.lap_images, self.lap_time = progress.images_seen, time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self.start

    def lap(self, images_seen: int) -> float:
        """Images per second since the last lap."""
        now = time.monotonic()
        rate = (images_seen - self.lap_images) / max(now - self.lap_time, 1e-9)
        self.lap_images, self.lap_time = images_seen, now
        return round(rate, 1)


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
    return Images(to_tensor(data.pixels(indices), device), labels)


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
        return f"{names[term]} became {float(values[step, term])} in step {at // batch:,}, at {at:,} images", {}
    return None, {name: round(float(v), 6) for name, v in zip(names, values.double().mean(dim=0), strict=True)}


def _finite(recipe: Recipe) -> bool:
    tensors = [tensor for module in recipe.modules.values() for tensor in module.state_dict().values()]
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def _roll_back(recipe: Recipe, folder: RunFolder, progress: Progress, device: torch.device) -> None:
    """Return to the last save, with other random numbers and half the learning rates, or it would happen again."""
    state = checkpoint.load_state(folder.state, device)
    recipe.load_state_dict(state["recipe"])
    saved = Progress(**state["progress"])
    rollbacks = progress.rollbacks + 1
    recipe.scale_learning_rates(0.5 ** (rollbacks - saved.rollbacks))
    for entry in dataclasses.fields(Progress):
        if entry.name != "seconds":
            setattr(progress, entry.name, getattr(saved, entry.name))
    progress.rollbacks = rollbacks


def _diverged(problem: str, folder: RunFolder, progress: Progress, on_nan: str) -> str:
    saved = checkpoint.read_card(folder.last).images_seen
    remedy = (
        f"{progress.rollbacks} rollbacks did not help, so lower the learning rates with --set in a new --out"
        if on_nan == "rollback"
        else "go on from there with --on-nan rollback, or lower the learning rates with --set in a new --out"
    )
    return f"{problem}; the last good checkpoint is {folder.last}, at {saved:,} images; {remedy}"
