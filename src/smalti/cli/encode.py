"""`smalti encode`: images to the codes of a trained VQ-VAE."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from smalti.cli import console
from smalti.cli.apps import app, examples
from smalti.cli.options import Cache, Device, Flag, ModelPath, OutPath, ResizeRule, SizeFirst, SourcePath
from smalti.cli.progress import counting

if TYPE_CHECKING:
    import numpy as np

    from smalti.data import PackedImages
    from smalti.pipelines.autoencoder import Autoencoder
    from smalti.pipelines.encoding import EncodedSplit


@app.command(
    help_epilogue=examples(
        "smalti encode runs/photos photos/ --size 64 --out codes/",
        "smalti encode runs/cifar cifar10 --out codes/ --flip",
    )
)
def encode(
    model: ModelPath,
    source: SourcePath,
    /,
    *,
    out: OutPath,
    split: str | None = None,
    size: SizeFirst = None,
    resize: ResizeRule = "cover",
    flip: Flag = False,
    effort: int = 0,
    groups: int | None = None,
    device: Device = "cpu",
    cache: Cache = None,
) -> int:
    """Encode a source of images with a trained VQ-VAE. The same command again resumes where it stopped.

    Parameters
    ----------
    out:
        Folder for the codes of each split, and a copy of the model that reads them.
    split:
        Encode only this split.
    flip:
        Also encode the images to train on mirrored.
    effort:
        Rounds of searching for better codes after encoding.
    groups:
        Sort the images into this many groups that look alike, and use the groups as labels.
    """
    from smalti.config.units import parse_size
    from smalti.features.clustering import check_groups
    from smalti.pipelines.autoencoder import Autoencoder, check_effort
    from smalti.pipelines.base import load_as
    from smalti.pipelines.encoding import group_splits, open_splits, place_tokenizer

    check_effort(effort)
    if groups is not None:
        check_groups(groups)
    autoencoder = load_as(model, Autoencoder, device=device)
    wanted = None if size is None else parse_size(size)
    with counting("packing") as tell:
        sets = open_splits(autoencoder, source, split=split, size=wanted, resize=resize, cache=cache, progress=tell)
    labels: list[np.ndarray] | list[None] = [None] * len(sets)
    if groups is not None:
        console.print_log()
        with counting("grouping") as tell:
            labels = group_splits(sets, groups, device=device, cache=cache, progress=tell)
    place_tokenizer(autoencoder, out)
    for images, found in zip(sets, labels, strict=True):
        console.note_skipped(images)
        done = _encode_split(
            autoencoder, images, out, source=source, flip=flip, effort=effort, labels=found, groups=groups or 0
        )
        size_note = f"{done.count:,} images, {done.bits:g} bits each: {done.folder}"
        console.note(f"{done.folder} holds these codes already" if done.complete else size_note)
    guided = () if groups is None else ("--set", "model.condition=class")
    console.suggest("train", "prior-nano", "--data", str(out), *guided, "--out", "FOLDER")
    return 0


def _encode_split(
    autoencoder: Autoencoder,
    images: PackedImages,
    out: Path,
    *,
    source: str,
    flip: bool,
    effort: int,
    labels: np.ndarray | None,
    groups: int,
) -> EncodedSplit:
    """Encode one split under a bar; whoever interrupts it is told how to go on."""
    from smalti.pipelines.encoding import encode_split

    reached = (0, len(images))
    with counting("encoding") as tell:

        def progress(done: int, total: int | None) -> None:
            nonlocal reached
            reached = (done, total or 0)
            tell(done, total)

        try:
            return encode_split(
                autoencoder, images, out, source=source, flip=flip, effort=effort, labels=labels, groups=groups,
                progress=progress,
            )  # fmt: skip
        except KeyboardInterrupt:
            done, total = reached
            console.note(f"stopped after {done:,} of {total:,} images. Give the same command again to go on.")
            raise
