"""Everything a training writes, while it runs. On ranks other than 0 nothing is written."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smalti import checkpoint
from smalti.config import RunConfig
from smalti.data import PackedImages
from smalti.data.pictures import grid, side_by_side, write_png
from smalti.layers.ranks import barrier, rank
from smalti.pixels import to_pixels
from smalti.recipes import Images, Recipe, Score
from smalti.runfolder import RunFolder


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


class Saver:
    """Log, previews, checkpoints and resume state of one run."""

    def __init__(self, folder: RunFolder, config: RunConfig, data: PackedImages, recipe: Recipe, license: str) -> None:
        self.folder, self.config, self.data, self.recipe, self.license = folder, config, data, recipe, license
        self.tensorboard: Any = None
        if rank() == 0:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:  # an extra; the JSONL log is always there
                return
            self.tensorboard = SummaryWriter(str(folder.path / "tensorboard"))

    def log(self, progress: Progress, **entries: Any) -> dict[str, Any]:
        """One record: a line of log.jsonl, and TensorBoard's scalars where it is installed."""
        record = {"images_seen": progress.images_seen, **entries}
        if rank() == 0:
            self.folder.append(record)
            if self.tensorboard is not None:
                for name, value in entries.items():
                    if isinstance(value, int | float):
                        self.tensorboard.add_scalar(name, value, progress.images_seen)
        return record

    def preview(self, progress: Progress, images: Images) -> None:
        """One sheet: pairs where the recipe shows two sets of pictures, a grid where it shows one."""
        if rank() != 0:
            return
        first, *rest = (to_pixels(value) for value in self.recipe.preview(images).values())
        sheet = side_by_side(first, rest[0], scale=2) if rest else grid(first, scale=2)
        path = self.folder.path / "previews" / f"{progress.images_seen:010d}.png"
        write_png(path, sheet, {"smalti": f"{self.recipe.kind} preview, {progress.images_seen} images seen"})

    def keep(self, progress: Progress, score: Score, where: str, images: int) -> None:
        """Note a score, and keep the weights if they are the best so far."""
        progress.score = {"name": score.name, "value": score.value, "on": where, "images": images}
        self.log(progress, event="score", **progress.score)
        if not math.isfinite(score.value):
            return
        better = progress.best is None or (
            score.value > progress.best if score.larger_is_better else score.value < progress.best
        )
        if better:
            progress.best = score.value
            if rank() == 0:
                checkpoint.write(self.folder.best, self.recipe.export(), self.card(progress))

    def save(self, progress: Progress) -> None:
        """The weights, then the resume state: a kill between the two resumes from the save before."""
        if rank() == 0:
            checkpoint.write(self.folder.last, self.recipe.export(), self.card(progress))
            state = {"progress": dataclasses.asdict(progress), "recipe": self.recipe.state_dict()}
            checkpoint.save_state(self.folder.state, state)
            if self.tensorboard is not None:
                self.tensorboard.flush()
        barrier()

    def close(self) -> None:
        if self.tensorboard is not None:
            self.tensorboard.close()

    def card(self, progress: Progress) -> checkpoint.Card:
        """What the weights of this moment say about themselves."""
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
