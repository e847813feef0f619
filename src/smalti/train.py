"""The training loop, for every recipe.

Progress is counted in images. Every random number comes from (seed, images_seen), so a run that was stopped at any
moment goes on from its last save as if nothing had happened: bit for bit on a CPU, and on a GPU as far as its kernels
are deterministic.
Several processes started by torchrun share each batch; rank 0 writes.
"""

from __future__ import annotations

import dataclasses
import functools
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor

from smalti import __version__, checkpoint
from smalti.config import RunConfig
from smalti.data import PackedImages
from smalti.errors import CheckpointError, ConfigError, DataError, TrainingError
from smalti.feeding import batch_at, first_batches, preview_count, slices, some_images
from smalti.layers.randomness import mix
from smalti.layers.ranks import (
    largest_over_ranks,
    rank,
    shared_fate,
    sum_over_ranks,
    take_from_first_rank,
    world,
)
from smalti.machine import Machine
from smalti.recipes import Recipe, Setting, build_recipe
from smalti.runfolder import RunFolder
from smalti.saver import STATE_FORMAT, Progress, Saver

SCORE_IMAGES = 512
MAX_ROLLBACKS = 5
SAVE_SECONDS = 600.0  # without a save before one is made out of turn
AGREE_EVERY = 8  # steps, between two questions to the other ranks whether to stop

_OTHER_FOLDER = "give --out another folder"


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
    _check(config, data, held_out, on_nan)
    device, precision = machine.resolve()
    batch_size, every = config.train.batch, config.train
    watch, where = (data, "training") if held_out is None else (held_out, "held-out")
    folder = RunFolder(out)
    try:
        with shared_fate():
            if rank() == 0:
                folder.claim(config)
        resuming = bool(largest_over_ranks(int(rank() == 0 and folder.state.exists())))
        with shared_fate():
            progress, state = _find_place(folder, resuming, data, machine, precision, device, reporter)
            recipe = build_recipe(config, Setting(data.shape, len(data.classes), device, progress.precision))
            if state is not None:
                _load_state(recipe, state, folder)
            if progress.watched != watch.fingerprint:
                progress.best, progress.watched = None, watch.fingerprint  # scores on other images do not compare
            if not resuming:
                recipe.start(functools.partial(first_batches, data, every.seed, config.data, device))
            if machine.compile:
                recipe.compile()
            saver = Saver(folder, config, data, recipe, license)
            saver.open_tensorboard(progress)
            saver.log(progress, event="resume" if resuming else "start", version=__version__,
                      torch=torch.__version__, device=str(device), precision=progress.precision, ranks=world(),
                      threads=torch.get_num_threads())  # fmt: skip
            if not resuming:
                saver.save(progress)  # so that a full disk is noticed now, and there is always a save to go back to
        if not resuming:
            take_from_first_rank(recipe.tensors())  # what was saved
        del state

        told: set[str] = set()  # what the advice so far was about
        pending: list[dict[str, Tensor]] = []  # losses of the steps since the last look, still on the device
        clock = _Clock(progress)
        recipe.horizon = _horizon(progress, every.images, budget_seconds)
        reporter.start(progress.images_seen, every.images)
        with _StopSignals() as stop:
            while True:
                progress.seconds = clock.seconds()
                done = progress.images_seen >= every.images
                over = budget_seconds is not None and progress.seconds >= budget_seconds
                stopped_by, over = _agree(stop.asked, over, step=progress.images_seen // batch_size)
                ending = done or over or stopped_by != 0
                due = functools.partial(_due, progress.images_seen, batch_size)
                to_score = ending or due(every.save_every)

                if pending and (to_score or due(every.log_every)):
                    # Here the host waits for the device: losses are read, and perhaps something is written.
                    problem, terms = _look(pending, progress.images_seen, batch_size)
                    pending.clear()
                    to_save = to_score or bool(largest_over_ranks(int(clock.save_is_old())))
                    if not problem and to_save and not _finite(recipe):
                        problem = f"the weights became infinite by {progress.images_seen:,} images"
                    with shared_fate():
                        if problem:
                            saver.log(progress, event="diverged", problem=problem)
                            _roll_back(problem, recipe, folder, progress, on_nan, device)
                            saver.log(progress, event="rollback", problem=problem, rollbacks=progress.rollbacks)
                            reporter.message(
                                f"{problem}; back to {progress.images_seen:,} images, half the learning rate"
                            )
                            clock.lap(progress.images_seen)
                            continue
                        rate = clock.lap(progress.images_seen)
                        record = saver.log(
                            progress, seconds=round(progress.seconds, 3), images_per_second=rate, **terms
                        )
                        reporter.progress(progress.images_seen, record)
                        recipe.horizon = _horizon(progress, every.images, budget_seconds)
                        _advise(recipe, terms, progress, told, saver, reporter)
                        if ending or due(every.preview_every):
                            saver.preview(progress, some_images(watch, preview_count(watch), device))
                        if to_score:
                            score = recipe.score(slices(watch, SCORE_IMAGES, batch_size, device))
                            saver.keep(progress, score, where, min(SCORE_IMAGES, len(watch)))
                        if to_save:
                            saver.save(progress)
                            clock.saved()
                if ending:
                    break

                recipe.draw_seed = mix(every.seed, progress.rollbacks)
                batch = batch_at(data, recipe.draw_seed, progress.images_seen, batch_size, config.data, device)
                pending.append(recipe.step(batch, progress.images_seen))
                progress.images_seen += batch_size
        saver.close()
        reason = "finished" if done else "stopped" if stopped_by else "budget"
        return Result(reason, progress.images_seen, progress.seconds, folder.path, progress.score, stopped_by)
    finally:
        reporter.finish()
        folder.release()


def _check(config: RunConfig, data: PackedImages, held_out: PackedImages | None, on_nan: str) -> None:
    if on_nan not in ("stop", "rollback"):
        raise ConfigError(f"--on-nan is {on_nan!r}, but must be stop or rollback")
    if config.train.batch % world():
        raise ConfigError(f"train.batch is {config.train.batch}, which {world()} ranks cannot share evenly")
    if len(data) < 2:
        raise DataError(f"{data.source} holds {len(data)} image; a training needs at least 2")
    if config.data.shift >= min(data.shape[1:]):
        raise ConfigError(
            f"data.shift is {config.data.shift}, but must be less than the sides of the images, "
            f"{data.shape[1]}x{data.shape[2]}"
        )
    if held_out is None:
        return
    if held_out.shape != data.shape:
        raise DataError(f"the held-out images have the shape {held_out.shape}, those to train on {data.shape}")
    if getattr(config.model, "conditional", False) and held_out.classes != data.classes:
        raise DataError(
            f"the held-out images have the classes {', '.join(held_out.classes) or 'none'}, those to train on "
            f"{', '.join(data.classes) or 'none'}; a model with labels needs the same ones"
        )


def _find_place(
    folder: RunFolder,
    resuming: bool,
    data: PackedImages,
    machine: Machine,
    precision: str,
    device: torch.device,
    reporter: Reporter,
) -> tuple[Progress, dict[str, Any] | None]:
    """The beginning, or where the folder's run stopped, with the recipe's state there."""
    if not resuming:
        if folder.last.exists() and checkpoint.read_card(folder.last).images_seen > 0:
            raise CheckpointError(
                f"{folder.path} holds weights, but {folder.state.name} is gone, so the run cannot go on; "
                "give --out another folder, which leaves these weights as they are"
            )
        return Progress(precision=precision, fingerprint=data.fingerprint), None
    state = checkpoint.load_state(folder.state, device)
    try:
        if state["format"] != STATE_FORMAT:
            raise CheckpointError(
                f"{folder.state} has the format {state['format']!r}, but smalti {__version__} resumes format "
                f"{STATE_FORMAT}; go on with the version that wrote it, or give --out another folder"
            )
        progress = Progress(**state["progress"])
        modules = state["recipe"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder.state} is no resume state of this version ({error}); {_OTHER_FOLDER}") from None
    if progress.fingerprint != data.fingerprint:
        raise DataError(
            f"the images of {data.source} are not those {folder.path} was trained on "
            f"(fingerprint {data.fingerprint[:12]}, expected {progress.fingerprint[:12]}); {_OTHER_FOLDER}"
        )
    if machine.precision != "auto" and machine.precision != progress.precision:
        reporter.message(f"going on in {precision} after {progress.precision}: no longer the same to the last bit")
        progress.precision = precision
    if rank() == 0:
        folder.rewind_log(progress.images_seen)
    reporter.message(f"resuming {folder.path} at {progress.images_seen:,} images")
    return progress, modules


def _load_state(recipe: Recipe, state: dict[str, Any], folder: RunFolder) -> None:
    try:
        recipe.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{folder.state} does not fit this version's networks ({reason}); {_OTHER_FOLDER}"
        ) from None


def _due(images_seen: int, batch: int, every: int) -> bool:
    """Whether the step that ended at `images_seen` passed a multiple of `every`."""
    return images_seen // every > (images_seen - batch) // every


def _agree(stopped_by: int, over: bool, *, step: int) -> tuple[int, bool]:
    """The signal and the end of time that all ranks act on, in the same step. They may notice at different ones."""
    if world() == 1:
        return stopped_by, over
    if step % AGREE_EVERY:
        return 0, False
    agreed = largest_over_ranks(2 * stopped_by + over)
    return agreed // 2, bool(agreed % 2)


def _advise(
    recipe: Recipe, terms: dict[str, float], progress: Progress, told: set[str], saver: Saver, reporter: Reporter
) -> None:
    """Pass the recipe's advice on, once in a session; the words before its colon say what it is about."""
    advice = recipe.advice(terms, progress.images_seen)
    if advice is None or advice.partition(":")[0] in told:
        return
    told.add(advice.partition(":")[0])
    saver.log(progress, event="advice", advice=advice)
    reporter.message(f"at {progress.images_seen:,} images: {advice}")


def _horizon(progress: Progress, images: int, budget_seconds: float | None) -> int:
    """How many images there will have been at the end, at the speed so far; the same on every rank."""
    if budget_seconds is None or progress.images_seen == 0:
        return images
    in_time = progress.images_seen * budget_seconds / max(progress.seconds, 1e-3)
    return largest_over_ranks(min(images, max(progress.images_seen, round(in_time))))


class _Clock:
    """Wall clock in the loop: over all sessions for the budget, and since the last lap for the rate."""

    def __init__(self, progress: Progress) -> None:
        self.start = time.monotonic() - progress.seconds
        self.lap_images, self.lap_time = progress.images_seen, time.monotonic()
        self.saved()

    def seconds(self) -> float:
        return time.monotonic() - self.start

    def lap(self, images_seen: int) -> float:
        """Images per second since the last lap."""
        now = time.monotonic()
        rate = (images_seen - self.lap_images) / max(now - self.lap_time, 1e-9)
        self.lap_images, self.lap_time = images_seen, now
        return round(rate, 1)

    def saved(self) -> None:
        self.save_time = time.monotonic()

    def save_is_old(self) -> bool:
        """Whether a power cut would cost too much by now. A save changes nothing that is computed."""
        return time.monotonic() - self.save_time > SAVE_SECONDS


class _StopSignals:
    """Ctrl-C, SIGTERM and a lost terminal end the loop after its step; a second one ends the process as usual."""

    asked = 0  # the signal's number

    def __enter__(self) -> _StopSignals:
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last one does not exist on Windows
                number = getattr(signal, name, None)
                # One that is ignored, as under nohup, stays ignored; None is a handler that Python cannot put back.
                if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        signal.signal(number, self._previous[number])

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


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


def _roll_back(
    problem: str, recipe: Recipe, folder: RunFolder, progress: Progress, on_nan: str, device: torch.device
) -> None:
    """Return to the last save, with other random numbers and half the learning rates, or it would happen again.

    Raises:
        TrainingError: that is not wanted, or was done often enough.
    """
    if on_nan != "rollback" or progress.rollbacks >= MAX_ROLLBACKS:
        saved_at = checkpoint.read_card(folder.last).images_seen
        remedy = (
            f"{progress.rollbacks} rollbacks did not help, so lower the learning rates with --set in a new --out"
            if on_nan == "rollback"
            else "go on from there with --on-nan rollback, or lower the learning rates with --set in a new --out"
        )
        raise TrainingError(f"{problem}; the last good checkpoint is {folder.last}, at {saved_at:,} images; {remedy}")
    state = checkpoint.load_state(folder.state, device)
    recipe.load_state_dict(state["recipe"])
    saved = Progress(**state["progress"])
    rollbacks = progress.rollbacks + 1
    recipe.scale_learning_rates(0.5 ** (rollbacks - saved.rollbacks))
    for entry in dataclasses.fields(Progress):
        if entry.name != "seconds":
            setattr(progress, entry.name, getattr(saved, entry.name))
    progress.rollbacks = rollbacks
    if rank() == 0:
        folder.rewind_log(progress.images_seen)
