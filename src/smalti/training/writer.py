"""Everything a training writes, while it runs. On ranks other than 0 nothing is written."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.run_dir import RunFolder
from smalti.config.run import RunConfig
from smalti.data.codes import CodeSet
from smalti.files import output_errors
from smalti.recipes import Codes, Images, Recipe, Score
from smalti.report.pictures import grid, side_by_side, write_png
from smalti.runtime.distributed import rank
from smalti.runtime.pixels import to_pixels
from smalti.training.batches import Data

STATE_FORMAT = 2  # of resume.pt
SMALL_SIDE = 64  # pixels; previews of pictures up to this size are shown enlarged


@dataclass
class Progress:
    """How far a run is; saved with the resume state."""

    images_seen: int = 0
    seconds: float = 0.0  # wall clock in the loop, over all sessions
    rollbacks: int = 0
    best: float | None = None
    precision: str = ""
    fingerprint: str = ""  # of the training images
    watched: str = ""  # fingerprint of the images that are scored
    score: dict[str, Any] = field(default_factory=dict)


class RunWriter:
    """Log, previews, checkpoints and resume state of one run."""

    def __init__(self, folder: RunFolder, config: RunConfig, data: Data, recipe: Recipe[Any], license: str) -> None:
        # The path is the user's own; the fingerprint says which images they are, wherever they lie.
        source = dataclasses.replace(config.data, source=Path(config.data.source).name)
        self.config = dataclasses.replace(config, data=source)
        self.folder, self.data, self.recipe, self.license = folder, data, recipe, license
        self.tensorboard: Any = None

    def open_tensorboard(self, progress: Progress) -> None:
        """TensorBoard's log, where it is installed; points after the place a run resumes from are dropped."""
        if rank() != 0:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # an extra; the JSONL log is always there
            return
        with output_errors(self.folder.path / "tensorboard"):
            self.tensorboard = SummaryWriter(str(self.folder.path / "tensorboard"), purge_step=progress.images_seen)

    def log(self, progress: Progress, **entries: Any) -> dict[str, Any]:
        """One record: a line of log.jsonl, and TensorBoard's scalars where it is installed."""
        record = {"images_seen": progress.images_seen, **entries}
        if rank() == 0:
            self.folder.append(record)
            if self.tensorboard is not None:
                with output_errors(self.folder.path / "tensorboard"):
                    for name, value in entries.items():
                        if isinstance(value, int | float):
                            self.tensorboard.add_scalar(name, value, progress.images_seen)
        return record

    def preview(self, progress: Progress, images: Images | Codes) -> None:
        """One sheet: pairs where the recipe shows two sets of pictures, a grid where it shows one."""
        if rank() != 0:
            return
        first, *rest = (to_pixels(value) for value in self.recipe.preview(images).values())
        scale = 2 if max(first.shape[1:3]) <= SMALL_SIDE else 1
        sheet = side_by_side(first, rest[0], scale=scale) if rest else grid(first, scale=scale)
        path = self.folder.path / "previews" / f"{progress.images_seen:010d}.png"
        write_png(path, sheet, {"smalti": f"{self.recipe.kind} preview, {progress.images_seen} images seen"})

    def record_score(self, progress: Progress, score: Score, where: str, images: int) -> None:
        """Note a score, and keep the weights if they are the best so far."""
        # JSON knows no infinity, which the PSNR of a perfect reconstruction is.
        value = score.value if math.isfinite(score.value) else None
        progress.score = {"name": score.name, "value": value, "on": where, "images": images}
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
        """The weights, then the resume state: a kill between the two resumes from the save before."""
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
                **({"images_fingerprint": self.data.about.images} if isinstance(self.data, CodeSet) else {}),
            },
            license=self.license,
            score=progress.score,
            tokenizer=None if self.recipe.context.tokenizer is None else self.recipe.context.tokenizer.card,
        )
