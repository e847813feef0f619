"""Writes the files of a running training: log, previews, checkpoints, resume state. Only rank 0 writes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.run_dir import RunFolder
from smalti.config.run import RunConfig
from smalti.data.dataset import Dataset
from smalti.files import output_errors
from smalti.recipes import Recipe, Score
from smalti.report.pictures import grid, side_by_side, write_png
from smalti.runtime.distributed import rank
from smalti.runtime.pixels import to_pixels

STATE_FORMAT = 2  # of resume.pt
SMALL_SIDE = 64  # pixels; previews of images up to this size are enlarged


@dataclass
class Progress:
    """Progress of a run, saved with the resume state."""

    images_seen: int = 0
    seconds: float = 0.0  # wall-clock time in the loop, including before a resume
    rollbacks: int = 0
    best: float | None = None  # score
    precision: str = ""
    fingerprint: str = ""  # of the training set
    watched: str = ""  # fingerprint of the held-out set that `best` refers to
    score: dict[str, Any] = field(default_factory=dict)


class RunWriter:
    """Log, previews, checkpoints and resume state of one run."""

    def __init__(self, folder: RunFolder, config: RunConfig, data: Dataset, recipe: Recipe[Any], license: str) -> None:
        # The path may be private and is not portable; the fingerprint identifies the data.
        targets = config.data.targets and Path(config.data.targets).name
        source = dataclasses.replace(config.data, source=Path(config.data.source).name, targets=targets)
        self.config = dataclasses.replace(config, data=source)
        self.folder, self.data, self.recipe, self.license = folder, data, recipe, license
        self.tensorboard: Any = None

    def open_tensorboard(self, progress: Progress) -> None:
        """Open TensorBoard's log if TensorBoard is installed, dropping points after the resume point."""
        if rank() != 0:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # optional; log.jsonl is always written
            return
        with output_errors(self.folder.path / "tensorboard"):
            self.tensorboard = SummaryWriter(str(self.folder.path / "tensorboard"), purge_step=progress.images_seen)

    def log(self, progress: Progress, **entries: Any) -> dict[str, Any]:
        """Append a record to log.jsonl, and its scalars to TensorBoard if installed; returns the record."""
        record = {"images_seen": progress.images_seen, **entries}
        if rank() == 0:
            self.folder.append(record)
            if self.tensorboard is not None:
                with output_errors(self.folder.path / "tensorboard"):
                    for name, value in entries.items():
                        if isinstance(value, int | float):
                            self.tensorboard.add_scalar(name, value, progress.images_seen)
        return record

    def preview(self, progress: Progress, batch: Any) -> None:
        """Write a preview image: pairs side by side if the recipe returns two sets of images, else a grid."""
        if rank() != 0:
            return
        pictures = [to_pixels(value) for value in self.recipe.preview(batch).values()]
        if not pictures:
            return
        first, *rest = pictures
        scale = 2 if max(first.shape[1:3]) <= SMALL_SIDE else 1
        sheet = side_by_side(first, rest[0], scale=scale) if rest else grid(first, scale=scale)
        path = self.folder.path / "previews" / f"{progress.images_seen:010d}.png"
        write_png(path, sheet, {"smalti": f"{self.recipe.kind} preview, {progress.images_seen} images seen"})

    def record_score(self, progress: Progress, score: Score, scored_on: str, images: int) -> None:
        """Log a score, and save the weights as `best.safetensors` if it is the best so far.

        Args:
            scored_on: "held-out" or "training".
            images: number of images scored.
        """
        # JSON has no infinity, which is the PSNR of a perfect reconstruction.
        value = score.value if math.isfinite(score.value) else None
        progress.score = {"name": score.name, "value": value, "on": scored_on, "images": images}
        self.log(progress, event="score", **progress.score)
        if value is None:
            return
        better = progress.best is None or (
            score.value > progress.best if score.larger_is_better else score.value < progress.best
        )
        if better:
            progress.best = score.value
            if rank() == 0:
                checkpoint.write(self.folder.best, self.recipe.export(), self.card(progress))

    def save(self, progress: Progress) -> None:
        """Save the weights, then the resume state: a run killed in between resumes from the previous save."""
        if rank() == 0:
            checkpoint.write(self.folder.last, self.recipe.export(), self.card(progress))
            state = {
                "format": STATE_FORMAT,
                "progress": dataclasses.asdict(progress),
                "recipe": self.recipe.state_dict(),
            }
            checkpoint.save_state(self.folder.state, state)
            if self.tensorboard is not None:
                with output_errors(self.folder.path / "tensorboard"):
                    self.tensorboard.flush()

    def close(self) -> None:
        if self.tensorboard is not None:
            with output_errors(self.folder.path / "tensorboard"):
                self.tensorboard.close()

    def card(self, progress: Progress) -> checkpoint.Card:
        """The checkpoint card of the current weights."""
        return checkpoint.Card(
            kind=self.recipe.kind,
            config=self.config,
            spec=self.recipe.output_spec,
            classes=self.data.classes,
            images_seen=progress.images_seen,
            data={
                "source": Path(self.data.source).name,
                "split": self.data.split,
                "fingerprint": self.data.fingerprint,
                "images": len(self.data),
                **self.data.provenance,
            },
            license=self.license,
            score=progress.score,
            tokenizer=None if self.recipe.tokenizer is None else self.recipe.tokenizer.card,
        )
