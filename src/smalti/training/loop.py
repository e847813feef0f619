"""The training loop, for every recipe.

Progress is counted in images. Every random number comes from (seed, images_seen), so a run that was stopped at any
moment goes on from its last save as if nothing had happened: bit for bit on a CPU, and on a GPU as far as its kernels
are deterministic.
Several processes started by torchrun share each batch; rank 0 writes.
"""

from __future__ import annotations

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

from smalti._version import __version__
from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.run_dir import RunFolder
from smalti.config.run import RunConfig
from smalti.errors import TrainingError
from smalti.recipes import Score, build_recipe
from smalti.runtime.device import Machine
from smalti.runtime.distributed import (
    all_reduce_max,
    all_reduce_sum,
    broadcast,
    raise_together,
    rank,
    world,
)
from smalti.runtime.rng import mix
from smalti.training.batches import Data, first_batches, open_feed, preview_count, slices, some_images
from smalti.training.resume import check, context_of_data, load_state, restore_progress
from smalti.training.writer import Progress, RunWriter

MAX_ROLLBACKS = 5
SAVE_SECONDS = 600.0  # without a save before one is made out of turn
AGREE_EVERY = 8  # steps, between two questions to the other ranks whether to stop
CHECK_EVERY = 50  # steps after which it is seen whether losses are still numbers


class Reporter(Protocol):
    """What the loop tells somebody who watches."""

    def start(self, images_seen: int, total: int) -> None: ...
    def progress(self, images_seen: int, record: dict[str, Any]) -> None: ...
    def message(self, text: str) -> None: ...
    def finish(self) -> None: ...


class SilentReporter:
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
    rollbacks: int = 0  # over all sessions
    signal: int = 0  # the number of the signal that stopped it


def train(
    config: RunConfig,
    data: Data,
    out: str | Path,
    *,
    held_out: Data | None = None,
    machine: Machine | None = None,
    budget_seconds: float | None = None,
    on_nan: str | None = None,
    on_collapse: str = "rollback",
    license: str = checkpoint.DEFAULT_LICENSE,
    reporter: Reporter | None = None,
) -> Result:
    """Train, or go on training, in a folder.

    Args:
        config: what to train; `config.train.images` is where it ends.
        data: the training images, or codes for the recipe prior.
        out: the run's folder; one that already holds this run is resumed.
        held_out: images for scores and previews; without them the training images are used, and the log says so.
        machine: device, precision, compilation.
        budget_seconds: end after this much wall clock in the loop, counted over all sessions of the run.
        on_nan: "stop", or "rollback" to the last save with halved learning rates, at most five times in all; None:
            "rollback" for a GAN that goes back from a collapse, else "stop".
        on_collapse: the same for what the recipe finds that has gone wrong, or "continue", which only tells.
        license: of the weights, written on their card.
        reporter: is told about the progress.

    Raises:
        ConfigError, DataError: settings that do not fit the data or the machine.
        OutputError: the folder holds another run or cannot be written.
        TrainingError: a loss became NaN or infinite, or the training collapsed.
    """
    machine, reporter = machine or Machine(), reporter or SilentReporter()
    if on_nan is None:  # for a GAN, to diverge is one way to collapse
        on_nan = "rollback" if config.recipe == "gan" and on_collapse == "rollback" else "stop"
    check(config, data, held_out, on_nan, on_collapse)
    folder = RunFolder(out)
    try:
        session = _Session(
            config, data, folder, held_out=held_out, machine=machine, budget_seconds=budget_seconds,
            policies={"nan": on_nan, "collapse": on_collapse}, license=license, reporter=reporter,
        )  # fmt: skip
        return session.run()
    finally:
        reporter.finish()
        folder.release()


class _Session:
    """A run from the place where it begins, or goes on, to its end or its next stop. All ranks do the same in step."""

    def __init__(
        self,
        config: RunConfig,
        data: Data,
        folder: RunFolder,
        *,
        held_out: Data | None,
        machine: Machine,
        budget_seconds: float | None,
        policies: dict[str, str],
        license: str,
        reporter: Reporter,
    ) -> None:
        self.config, self.data, self.folder = config, data, folder
        self.budget_seconds, self.policies, self.reporter = budget_seconds, policies, reporter
        self.watch, self.where = (data, "training") if held_out is None else (held_out, "held-out")
        self.told: set[str] = set()  # what the advice so far was about
        self.pending: list[dict[str, Tensor]] = []  # losses of the steps since the last look, still on the device
        self.device, precision = machine.resolve()
        with raise_together():
            if rank() == 0:
                folder.claim(config)
        resuming = bool(all_reduce_max(int(rank() == 0 and folder.state.exists())))
        with raise_together():
            self.progress, state = restore_progress(
                folder, resuming, data, machine, precision, self.device, reporter.message
            )
            setting = context_of_data(data, self.device, self.progress.precision)
            self.recipe = build_recipe(config, setting)
            if state is not None:
                load_state(self.recipe, state, folder)
            self._forget_other_scores()
            if not resuming:
                self.recipe.start(functools.partial(first_batches, data, config.train.seed, config.data, self.device))
            if machine.compile:
                self.recipe.compile()
            self.writer = RunWriter(folder, config, data, self.recipe, license)
            self.writer.open_tensorboard(self.progress)
            self.writer.log(self.progress, event="resume" if resuming else "start", version=__version__,
                           torch=torch.__version__, device=str(self.device), precision=self.progress.precision,
                           ranks=world(), threads=torch.get_num_threads())  # fmt: skip
            if not resuming:
                self.writer.save(self.progress)  # so that a full disk is noticed now, and there is one to go back to
        if not resuming:
            broadcast(self.recipe.tensors())  # what was saved
        self.feed = open_feed(data, self.device)
        self.learned_enough = self._ask_whether_to_stop()
        self.clock = _Clock(self.progress)

    def run(self) -> Result:
        """Step after step until the images or the time are used up, or a signal asks to stop."""
        progress, loop = self.progress, self.config.train
        self._set_horizon()
        self.reporter.start(progress.images_seen, loop.images)
        with _StopSignals() as stop:
            while True:
                progress.seconds = self.clock.seconds()
                done = progress.images_seen >= loop.images or self.learned_enough
                over = self.budget_seconds is not None and progress.seconds >= self.budget_seconds
                stopped_by, over = _agree(stop.asked, over, step=progress.images_seen // loop.batch)
                ending = done or over or stopped_by != 0
                due = ending or self._due(loop.save_every) or self._due(loop.log_every) or self._diverged()
                if self.pending and due and not self._write_due(ending):
                    # Gone back to an earlier place, by now on all ranks, so that the state there can be replaced: who
                    # is stopped next goes on more carefully too.
                    with raise_together():
                        self.writer.save(progress)
                        self.clock.saved()
                    continue
                if ending:
                    break
                self._step()
        self.writer.close()
        reason = "finished" if done else "stopped" if stopped_by else "budget"
        return Result(
            reason,
            progress.images_seen,
            progress.seconds,
            self.folder.path,
            progress.score,
            progress.rollbacks,
            stopped_by,
        )

    def _step(self) -> None:
        progress, loop = self.progress, self.config.train
        self.recipe.draw_seed = mix(loop.seed, progress.rollbacks)
        order, place = self.recipe.draw_seed, (progress.images_seen, loop.batch, self.config.data)
        batch = self.feed.batch(order, *place)
        self.recipe.extra_batch = lambda: self.feed.batch(mix(order, 1), *place)
        self.pending.append(self.recipe.step(batch, progress.images_seen))
        progress.images_seen += loop.batch

    def _diverged(self) -> bool:
        """Whether a loss of the last steps is not finite; asked every so often, because to read it waits for them."""
        if not self.pending or len(self.pending) % CHECK_EVERY:
            return False
        recent = [value.float() for terms in self.pending[-CHECK_EVERY:] for value in terms.values()]
        return bool(all_reduce_max(int(not torch.stack(recent).isfinite().all())))

    def _due(self, every: int) -> bool:
        """Whether the step that ended here passed a multiple of `every`."""
        seen = self.progress.images_seen
        return seen // every > (seen - self.config.train.batch) // every

    def _write_due(self, ending: bool) -> bool:
        """Wait for the device, read the losses, and write what is due; False: something went wrong and was undone."""
        progress, loop = self.progress, self.config.train
        problem, terms = _read(self.pending, progress.images_seen, loop.batch)
        self.pending.clear()
        to_score = ending or self._due(loop.save_every)
        to_save = to_score or bool(all_reduce_max(int(self.clock.save_is_old())))
        if not problem and to_save and not self.recipe.finite():
            problem = f"the weights became infinite by {progress.images_seen:,} images"
        if problem:
            with raise_together():
                self._roll_back(problem, "nan")
            return False
        trouble, figures, score = self._check_training(to_score)
        with raise_together():
            rate = self.clock.lap(progress.images_seen)
            record = self.writer.log(progress, seconds=round(progress.seconds, 3), images_per_second=rate,
                                    **terms, **figures)  # fmt: skip
            self.reporter.progress(progress.images_seen, record)
            if trouble and self.policies["collapse"] != "continue":
                self._roll_back(trouble, "collapse")
                return False
            self._announce("collapse", trouble)
            self._announce("advice", self.recipe.advice(terms, progress.images_seen))
            if ending or self._due(loop.preview_every):
                self.writer.preview(progress, some_images(self.watch, preview_count(self.watch), self.device))
            if score:
                self.writer.record_score(progress, score, self.where, min(self.recipe.score_images, len(self.watch)))
            if to_save:
                self.writer.save(progress)
                self.clock.saved()
        self._set_horizon()
        return True

    def _check_training(self, to_score: bool) -> tuple[str | None, dict[str, float], Score | None]:
        """What has gone wrong that is still a number, the same on all ranks; what was looked at; the score if due."""
        loop = self.config.train
        regular = self._due(loop.save_every)
        with raise_together():
            figures, trouble, score = dict[str, float](), None, None
            if regular or self._due(loop.log_every):
                figures, trouble = self.recipe.diagnostics()
            elif to_score:  # it is stopped here: a state that has collapsed shall not replace a good one
                _, trouble = self.recipe.diagnostics(remember=False)
            if to_score and (not trouble or self.policies["collapse"] == "continue"):
                score = self.recipe.score(slices(self.watch, self.recipe.score_images, loop.batch, self.device))
                trouble = trouble or (self.recipe.check_score(score) if regular else None)
        if all_reduce_max(int(trouble is not None)):  # two GPUs may see one figure on two sides of a limit
            trouble = trouble or "another rank found that the training collapsed"
        elif regular:
            self.learned_enough = self._ask_whether_to_stop()
        return trouble, figures, score

    def _ask_whether_to_stop(self) -> bool:
        """Whether the recipe says so on any rank."""
        why = self.recipe.should_stop()
        self._announce("enough", why)
        return bool(all_reduce_max(int(why is not None)))

    def _forget_other_scores(self) -> None:
        """Scores on other images than those that are watched now do not compare."""
        if self.progress.watched != self.watch.fingerprint:
            self.progress.best = None
            self.recipe.discard_scores()
            self.progress.watched = self.watch.fingerprint

    def _set_horizon(self) -> None:
        """Tell the recipe, the same on all ranks, how many images there will have been by the end at this speed."""
        progress, images = self.progress, self.config.train.images
        self.recipe.horizon = images
        if self.budget_seconds is not None and progress.images_seen > 0:
            in_time = progress.images_seen * self.budget_seconds / max(progress.seconds, 1e-3)
            self.recipe.horizon = all_reduce_max(min(images, max(progress.images_seen, round(in_time))))

    def _announce(self, event: str, text: str | None) -> None:
        """Pass on what the recipe says, once in a session; the words before its colon say what it is about."""
        if text is None or text.partition(":")[0] in self.told:
            return
        self.told.add(text.partition(":")[0])
        self.writer.log(self.progress, event=event, **{event: text})
        self.reporter.message(f"at {self.progress.images_seen:,} images: {text}")

    def _roll_back(self, problem: str, kind: str) -> None:
        """Return to the last save, to go on from there more carefully and with other random numbers.

        Raises:
            TrainingError: that is not wanted, or was done often enough.
        """
        progress, folder = self.progress, self.folder
        noticed = progress.images_seen
        at = f"at {noticed:,} images"
        self.writer.log(progress, event={"nan": "diverged"}.get(kind, kind), problem=problem)
        if self.policies[kind] != "rollback" or progress.rollbacks >= MAX_ROLLBACKS:
            saved_at = checkpoint.read_card(folder.last).images_seen
            remedy = (
                f"{progress.rollbacks} rollbacks did not help, so lower the learning rates with --set in a new --out"
                if self.policies[kind] == "rollback"
                else f"go on from there with --on-{kind} rollback, or lower the learning rates in a new --out"
            )
            raise TrainingError(
                f"{problem}; the last good checkpoint is {folder.last}, at {saved_at:,} images; {remedy}"
            )
        state = checkpoint.load_state(folder.state, self.device)
        self.recipe.load_state_dict(state["recipe"])
        for name, value in state["progress"].items():
            if name not in ("seconds", "precision"):  # which may be others than when it was saved
                setattr(progress, name, value)
        progress.rollbacks += 1  # saved after each, so that this counts all there have been
        self.recipe.on_rollback()
        self._forget_other_scores()
        if rank() == 0:
            folder.rewind_log(progress.images_seen)
        self.writer.log(progress, event="rollback", problem=problem, noticed=noticed, rollbacks=progress.rollbacks)
        self.reporter.message(
            f"{at}: {problem}; back to {progress.images_seen:,} images, more carefully: {self.recipe.rollback_effect}"
        )
        self.clock.lap(progress.images_seen)


def _agree(stopped_by: int, over: bool, *, step: int) -> tuple[int, bool]:
    """The signal and the end of time that all ranks act on, in the same step. They may notice at different ones."""
    if world() == 1:
        return stopped_by, over
    if step % AGREE_EVERY:
        return 0, False
    agreed = all_reduce_max(2 * stopped_by + over)
    return agreed // 2, bool(agreed % 2)


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


def _read(pending: list[dict[str, Tensor]], images_seen: int, batch: int) -> tuple[str | None, dict[str, float]]:
    """What went wrong in the steps since the last look, or None; and the mean of every term over them."""
    names = list(pending[0])
    values = torch.stack([torch.stack([terms[name].float() for name in names]) for terms in pending])
    values = (all_reduce_sum(values) / world()).cpu()
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        step, term = (int(index) for index in bad[0])
        at = images_seen - (len(pending) - step) * batch
        return f"{names[term]} became {float(values[step, term])} in step {at // batch:,}, at {at:,} images", {}
    return None, {name: round(float(v), 6) for name, v in zip(names, values.double().mean(dim=0), strict=True)}
