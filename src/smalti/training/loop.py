"""The training loop shared by all recipes.

Progress is counted in images. Every random number is a function of (seed, images_seen), so a run that was interrupted
at any point resumes from its last save exactly as if it had never stopped: bit for bit on a CPU, and on a GPU as far as
its kernels are deterministic.
Several processes started by torchrun share each batch; only rank 0 writes files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smalti._version import __version__
from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.run_dir import RunFolder
from smalti.config.run import RunConfig
from smalti.data.dataset import Dataset
from smalti.errors import ConfigError, TrainingError, arg
from smalti.recipes import Score, Tokenizer, build_recipe
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
from smalti.training.batches import first_batches, open_feed, preview_count, spread_batch, spread_batches
from smalti.training.control import Clock, StopSignals, agree
from smalti.training.initial import read_initial, read_tokenizer, start_from
from smalti.training.reporter import Reporter, SilentReporter
from smalti.training.resume import check, load_state, restore_progress
from smalti.training.writer import RunWriter

MAX_ROLLBACKS = 5
CHECK_EVERY = 50  # steps between checks for NaN and infinite losses


@dataclass(frozen=True)
class Result:
    """Outcome of a training; `reason` is `finished`, `budget` (out of time) or `stopped` (by a signal)."""

    reason: str
    images_seen: int
    seconds: float
    folder: Path
    score: dict[str, Any]
    rollbacks: int = 0  # in total, including those before a resume
    signal: int = 0  # number of the signal that stopped it, 0 if none


def train(
    config: RunConfig,
    data: Dataset,
    out: str | Path,
    *,
    held_out: Dataset | None = None,
    start_from: str | Path | None = None,
    of: str | Path | None = None,
    machine: Machine | None = None,
    budget_seconds: float | None = None,
    on_nan: str | None = None,
    on_collapse: str = "rollback",
    license: str = checkpoint.DEFAULT_LICENSE,
    reporter: Reporter | None = None,
) -> Result:
    """Train a model, or resume its training, in a run folder.

    Args:
        config: settings of the training; it ends after `config.train.images` images.
        data: the training set: images, or codes for the recipe `prior`.
        out: the run folder; if it already holds this run, the run is resumed.
        held_out: held-out set for scores and previews; None: the training set is used, and the log says so.
        start_from: run, checkpoint or zoo:NAME of a trained model of the same kind and with the same model settings,
            whose weights a new run starts from. To resume, give it again.
        of: run, checkpoint or zoo:NAME of the trained VQ-VAE whose codes are learned, for the recipe `restore-codes`;
            codes come with their own. To resume, give it again.
        machine: device, precision and compilation.
        budget_seconds: limit on the wall-clock time in the loop, including the time before a resume.
        on_nan: reaction to a loss that is NaN or infinite: "stop", or "rollback" to the last save with halved learning
            rates, at most five times in total; None: "rollback" for a GAN with on_collapse="rollback", else "stop".
        on_collapse: reaction to a collapse reported by the recipe: the same, or "continue", which only reports it.
        license: license of the weights, stored in their card.
        reporter: receives progress and messages.

    Raises:
        ConfigError, DataError: the settings do not fit the data or the machine.
        OutputError: the folder holds another run or cannot be written.
        TrainingError: a loss became NaN or infinite, or the training collapsed, and no rollback is left.
    """
    machine, reporter = machine or Machine(), reporter or SilentReporter()
    if on_nan is None:  # for a GAN, divergence is a form of collapse
        on_nan = "rollback" if config.kind.load_recipe().monitors_collapse and on_collapse == "rollback" else "stop"
    initial = None
    if start_from is not None:
        config, initial = read_initial(config, start_from)
    elif config.train.start_from:
        raise ConfigError(
            f"train.start_from is {config.train.start_from!r}; give {arg('start_from', 'RUN')}, that model"
        )
    config, tokenizer = read_tokenizer(config, of)
    check(config, data, held_out, on_nan, on_collapse)
    folder = RunFolder(out)
    try:
        loop = _TrainingLoop(
            config, data, folder, held_out=held_out, initial=initial, tokenizer=tokenizer, machine=machine,
            budget_seconds=budget_seconds, policies={"nan": on_nan, "collapse": on_collapse}, license=license,
            reporter=reporter,
        )  # fmt: skip
        return loop.run()
    finally:
        reporter.finish()
        folder.release()


class _TrainingLoop:
    """Runs a training from its start or resume point until it ends or is stopped; all ranks execute the same steps."""

    def __init__(
        self,
        config: RunConfig,
        data: Dataset,
        folder: RunFolder,
        *,
        held_out: Dataset | None,
        initial: nn.Module | None,
        tokenizer: Tokenizer | None,
        machine: Machine,
        budget_seconds: float | None,
        policies: dict[str, str],
        license: str,
        reporter: Reporter,
    ) -> None:
        self.config, self.data, self.folder = config, data, folder
        self.budget_seconds, self.policies, self.reporter = budget_seconds, policies, reporter
        # Without a held-out set, scores and previews are of the training set.
        self.held_out, self.scored_on = (data, "training") if held_out is None else (held_out, "held-out")
        self.announced: set[str] = set()  # topics of the messages so far
        self.pending: list[dict[str, Tensor]] = []  # losses of the steps since the last log record, still on the device
        self.device, precision = machine.resolve()
        with raise_together():
            if rank() == 0:
                folder.claim(config)
        resuming = bool(all_reduce_max(int(rank() == 0 and folder.state.exists())))
        with raise_together():
            self.progress, state = restore_progress(
                folder, resuming, data, machine, precision, self.device, reporter.message
            )
            context = config.kind.load_recipe().context_for(data, self.device, self.progress.precision)
            if tokenizer is not None:
                context = dataclasses.replace(context, tokenizer=tokenizer.to(self.device))
            self.recipe = build_recipe(config, context)
            if state is not None:
                load_state(self.recipe, state, folder)
            self._discard_outdated_scores()
            if not resuming and initial is not None:
                start_from(self.recipe, initial)
            elif not resuming:
                self.recipe.start(self._fitting_batches)
            if machine.compile:
                self.recipe.compile()
            self.writer = RunWriter(folder, config, data, self.recipe, license)
            self.writer.open_tensorboard(self.progress)
            self.writer.log(self.progress, event="resume" if resuming else "start", version=__version__,
                           torch=torch.__version__, device=str(self.device), precision=self.progress.precision,
                           ranks=world(), threads=torch.get_num_threads())  # fmt: skip
            if not resuming:
                self.writer.save(self.progress)  # detects a full disk early, and gives rollbacks a state to return to
        if not resuming:
            broadcast(self.recipe.tensors())  # so that all ranks train the weights that rank 0 saved
        self.feed = open_feed(self.recipe, data, config.data)
        self.stopped_early = self._check_early_stopping()
        self.clock = Clock(self.progress)

    def run(self) -> Result:
        """Train until the images or the time budget are used up, early stopping triggers, or a signal arrives."""
        progress, loop = self.progress, self.config.train
        self._set_horizon()
        self.reporter.start(progress.images_seen, loop.images)
        with StopSignals() as stop:
            while True:
                progress.seconds = self.clock.seconds()
                done = progress.images_seen >= loop.images or self.stopped_early
                over = self.budget_seconds is not None and progress.seconds >= self.budget_seconds
                stopped_by, over = agree(stop.received, over, step=progress.images_seen // loop.batch)
                ending = done or over or stopped_by != 0
                due = ending or self._due(loop.save_every) or self._due(loop.log_every) or self._diverged()
                if self.pending and due and not self._log_and_save(ending):
                    # A rollback, which all ranks have completed by now. Saving it keeps the lowered learning rates and
                    # the rollback count if the run is interrupted before its next regular save.
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

    def _fitting_batches(self) -> Iterator[Any]:
        """The batches that `Recipe.start` initialises from before the first step."""
        return first_batches(self.recipe, self.data, self.config.data, self.config.train.seed)

    def _step(self) -> None:
        progress, loop = self.progress, self.config.train
        self.recipe.draw_seed = mix(loop.seed, progress.rollbacks)
        order_seed, position = self.recipe.draw_seed, (progress.images_seen, loop.batch)
        batch = self.feed.batch(order_seed, *position)
        self.recipe.extra_batch = lambda: self.feed.batch(mix(order_seed, 1), *position)
        self.pending.append(self.recipe.step(batch, progress.images_seen))
        progress.images_seen += loop.batch

    def _diverged(self) -> bool:
        """Whether a recent loss is NaN or infinite. Checked rarely, because reading losses blocks on the device."""
        if not self.pending or len(self.pending) % CHECK_EVERY:
            return False
        recent = [value.float() for terms in self.pending[-CHECK_EVERY:] for value in terms.values()]
        return bool(all_reduce_max(int(not torch.stack(recent).isfinite().all())))

    def _due(self, every: int) -> bool:
        """Whether the last step crossed a multiple of `every` images."""
        seen = self.progress.images_seen
        return seen // every > (seen - self.config.train.batch) // every

    def _log_and_save(self, ending: bool) -> bool:
        """Log the losses; preview, score and save where due. Returns False after a rollback."""
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
        collapse, figures, score = self._check_training(to_score)
        with raise_together():
            rate = self.clock.lap(progress.images_seen)
            record = self.writer.log(progress, seconds=round(progress.seconds, 3), images_per_second=rate,
                                    **terms, **figures)  # fmt: skip
            self.reporter.progress(progress.images_seen, record)
            if collapse and self.policies["collapse"] != "continue":
                self._roll_back(collapse, "collapse")
                return False
            self._announce("collapse", collapse)
            self._announce("advice", self.recipe.advice(terms, progress.images_seen))
            if ending or self._due(loop.preview_every):
                count = preview_count(self.held_out)
                self.writer.preview(progress, spread_batch(self.held_out, count, self.recipe.to_device))
            if score:
                count = min(self.recipe.score_images, len(self.held_out))
                self.writer.record_score(progress, score, self.scored_on, count)
            if to_save:
                self.writer.save(progress)
                self.clock.saved()
        self._set_horizon()
        return True

    def _check_training(self, to_score: bool) -> tuple[str | None, dict[str, float], Score | None]:
        """Check for a collapse, which all ranks agree on: (message or None, figures to log, score if due)."""
        loop = self.config.train
        regular = self._due(loop.save_every)
        with raise_together():
            figures, collapse, score = dict[str, float](), None, None
            if regular or self._due(loop.log_every):
                figures, collapse = self.recipe.diagnostics()
            elif to_score:  # the run is ending: a collapsed state must not overwrite a good one
                _, collapse = self.recipe.diagnostics(remember=False)
            if to_score and (not collapse or self.policies["collapse"] == "continue"):
                count, to_device = self.recipe.score_images, self.recipe.to_device
                score = self.recipe.score(spread_batches(self.held_out, count, loop.batch, to_device))
                collapse = collapse or (self.recipe.check_score(score) if regular else None)
        if all_reduce_max(int(collapse is not None)):  # rounding may put a figure on either side of a threshold
            collapse = collapse or "another rank found that the training collapsed"
        elif regular:
            self.stopped_early = self._check_early_stopping()
        return collapse, figures, score

    def _check_early_stopping(self) -> bool:
        """Whether the recipe requests early stopping on any rank."""
        reason = self.recipe.should_stop()
        self._announce("enough", reason)
        return bool(all_reduce_max(int(reason is not None)))

    def _discard_outdated_scores(self) -> None:
        """Discard the best score and the recipe's score history if they refer to another held-out set."""
        if self.progress.watched != self.held_out.fingerprint:
            # The held-out set changed: earlier scores are discarded.
            self.progress.best = None
            self.recipe.discard_scores()
            self.progress.watched = self.held_out.fingerprint

    def _set_horizon(self) -> None:
        """Set the recipe's schedule length: the images until the end, estimated from the speed if time is limited."""
        progress, images = self.progress, self.config.train.images
        self.recipe.horizon = images
        if self.budget_seconds is not None and progress.images_seen > 0:
            estimate = progress.images_seen * self.budget_seconds / max(progress.seconds, 1e-3)
            self.recipe.horizon = all_reduce_max(min(images, max(progress.images_seen, round(estimate))))

    def _announce(self, event: str, text: str | None) -> None:
        """Log and report a message from the recipe, once per topic: the words before its colon."""
        if text is None or text.partition(":")[0] in self.announced:
            return
        self.announced.add(text.partition(":")[0])
        self.writer.log(self.progress, event=event, **{event: text})
        self.reporter.message(f"at {self.progress.images_seen:,} images: {text}")

    def _roll_back(self, problem: str, kind: str) -> None:
        """Roll back to the last save, then continue with lower learning rates and other random numbers.

        Raises:
            TrainingError: rollbacks are off or used up.
        """
        progress, folder = self.progress, self.folder
        noticed = progress.images_seen
        at = f"at {noticed:,} images"
        self.writer.log(progress, event={"nan": "diverged"}.get(kind, kind), problem=problem)
        if self.policies[kind] != "rollback" or progress.rollbacks >= MAX_ROLLBACKS:
            saved_at = checkpoint.read_card(folder.last).images_seen
            restart = f"lower the learning rates in a new {arg('out')}"
            slower = f"lower the learning rates with {arg('set')} in a new {arg('out')}"
            remedy = (
                f"{progress.rollbacks} rollbacks did not help, so {slower}"
                if self.policies[kind] == "rollback"
                else f"go on from there with {arg(f'on_{kind}', 'rollback')}, or {restart}"
            )
            raise TrainingError(
                f"{problem}; the last good checkpoint is {folder.last}, at {saved_at:,} images; {remedy}"
            )
        state = checkpoint.load_state(folder.state, self.device)
        self.recipe.load_state_dict(state["recipe"])
        for name, value in state["progress"].items():
            if name not in ("seconds", "precision"):  # these have moved on since the save
                setattr(progress, name, value)
        progress.rollbacks += 1  # each rollback is saved, so the loaded count includes all earlier ones
        self.recipe.on_rollback()
        self._discard_outdated_scores()
        if rank() == 0:
            folder.rewind_log(progress.images_seen)
        self.writer.log(progress, event="rollback", problem=problem, noticed=noticed, rollbacks=progress.rollbacks)
        self.reporter.message(
            f"{at}: {problem}; back to {progress.images_seen:,} images, more carefully: {self.recipe.rollback_effect}"
        )
        self.clock.lap(progress.images_seen)


def _read(pending: list[dict[str, Tensor]], images_seen: int, batch: int) -> tuple[str | None, dict[str, float]]:
    """The first non-finite loss since the last log record, or None; and the mean of each loss over those steps."""
    names = list(pending[0])
    values = torch.stack([torch.stack([terms[name].float() for name in names]) for terms in pending])
    values = (all_reduce_sum(values) / world()).cpu()
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        step, term = (int(index) for index in bad[0])
        at = images_seen - (len(pending) - step) * batch
        return f"{names[term]} became {float(values[step, term])} in step {at // batch:,}, at {at:,} images", {}
    return None, {name: round(float(v), 6) for name, v in zip(names, values.double().mean(dim=0), strict=True)}
