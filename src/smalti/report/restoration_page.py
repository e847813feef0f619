"""The page of `smalti restore`: pictures before and after, with figures where there are references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from smalti.data.images import as_array, as_image, change
from smalti.metrics.distortion import psnr_db, squared_error_uint8
from smalti.metrics.ssim import WINDOW, StructuralSimilarity
from smalti.report.html import Report

SIDE = 256  # of the windows that are shown
SHOWN = 60  # pictures; the table of figures has all
GAP = 4  # pixels between before and after


class Figures(NamedTuple):
    """PSNR in dB (infinite for equal pictures), and SSIM, NaN for pictures smaller than its window."""

    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class Shown:
    """One picture of the page."""

    name: str
    image: np.ndarray  # before | after | reference
    before: Figures | None
    after: Figures | None


def figures_of(found: np.ndarray, reference: np.ndarray) -> Figures:
    """Both (H, W, 1, 3 or 4) uint8; compared in the channels of the reference, alpha over white."""
    found = change(found, channels=reference.shape[2], size=None)
    ssim = float("nan")
    if min(reference.shape[:2]) >= WINDOW:
        ssim = float(StructuralSimilarity().measure(reference[None], found[None])[0])
    return Figures(psnr_db(*squared_error_uint8(found, reference)), ssim)


def shown(name: str, before: np.ndarray, after: np.ndarray, reference: np.ndarray | None) -> Shown:
    """Before and after, and the reference if there is one, around the middle; smaller pictures whole.

    Args:
        before: (h, w, C) uint8, enlarged here to the size of the result.
        after: (H, W, C') uint8.
        reference: (H, W, C'') uint8.
    """
    height, width = after.shape[:2]
    if before.shape[:2] != (height, width):
        before = as_array(as_image(before).resize((width, height)))  # Pillow's default is bicubic
    parts = [part for part in (before, after, reference) if part is not None]
    channels = max(part.shape[2] for part in parts)
    top, left = max(0, (height - SIDE) // 2), max(0, (width - SIDE) // 2)
    windows = [
        np.pad(
            change(part[top : top + SIDE, left : left + SIDE], channels=channels, size=None),
            ((0, 0), (0, GAP * (index < len(parts) - 1)), (0, 0)),
            constant_values=255,
        )
        for index, part in enumerate(parts)
    ]
    image = np.concatenate(windows, axis=1)
    if reference is None:
        return Shown(name, image, None, None)
    return Shown(name, image, figures_of(before, reference), figures_of(after, reference))


def restoration_page(
    pictures: list[Shown], *, models: list[tuple[str, str]], strength: float, without: dict[str, str]
) -> Report:
    """The page.

    Args:
        pictures: in the order of the page.
        models: name and degradation of each model, "" for one that undoes none.
        strength: as it was asked for.
        without: why a picture has no figures, by its name.
    """
    report = Report("Before and after", ", then ".join(name for name, _ in models))
    report.facts({
        "pictures": f"{len(pictures):,}",
        **{f"trained to undo, {name}": degradation for name, degradation in models if degradation},
        "strength": f"{strength:g}",
    })  # fmt: skip
    measured = [one for one in pictures if one.before is not None and one.after is not None]
    if measured:
        report.heading("Figures")
        report.table(
            ("picture", "PSNR before, dB", "after", "SSIM before", "after"),
            [("mean", *_means(measured))] + [(one.name, *_cells(one)) for one in measured],
            caption="Against the references, in 8-bit levels; pictures before are enlarged to the size of the results.",
        )
    for name, reason in without.items():
        report.paragraph(f"{name} has no figures: {reason}.")
    report.heading("Pictures")
    words = "before, after" + (", reference" if measured else "")
    for one in pictures[:SHOWN]:
        report.picture(one.image, one.name, alt=f"{one.name}: {words}")
    if len(pictures) > SHOWN:
        report.paragraph(f"The first {SHOWN} of {len(pictures):,} pictures are shown.")
    return report


def _cells(one: Shown) -> tuple[str, ...]:
    assert one.before is not None
    assert one.after is not None
    return (
        f"{one.before.psnr_db:.2f}", f"{one.after.psnr_db:.2f}", f"{one.before.ssim:.4f}", f"{one.after.ssim:.4f}"
    )  # fmt: skip


def _means(measured: list[Shown]) -> tuple[str, ...]:
    values = np.array([[*one.before, *one.after] for one in measured if one.before and one.after])
    psnr_before, ssim_before, psnr_after, ssim_after = values.mean(axis=0)
    return f"{psnr_before:.2f}", f"{psnr_after:.2f}", f"{ssim_before:.4f}", f"{ssim_after:.4f}"
