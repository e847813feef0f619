"""HTML page of a comparison of codecs: rate-distortion curves, and bytes an image at equal PSNR."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from smalti.metrics.rate_distortion import bytes_at
from smalti.report.html import Report

Curve = Sequence[tuple[float, float]]

ROWS = 10  # of a table
_WORDS = {
    "files": "One file for each image",
    "archives": "Many images in one file",
}


def codec_table(curves: Mapping[str, Curve]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Bytes an image at whole dB within the first curve, which is ours; with others, the share that ours is of theirs.

    Args:
        curves: points (bytes, PSNR in dB) by bytes, of each codec by its title.

    Returns:
        Header and rows.
    """
    ours, *others = curves
    low, high = curves[ours][0][1], curves[ours][-1][1]
    levels = [float(level) for level in range(math.ceil(low), math.floor(high) + 1)]
    if len(levels) > ROWS:
        levels = levels[:: -(-len(levels) // ROWS)]
    rows = []
    for level in levels or [(low + high) / 2]:
        own = bytes_at(curves[ours], level)
        if own is None:
            continue
        cells = [f"{level:.4g}", f"{own:,.1f}"]
        for other in others:
            found = bytes_at(curves[other], level)
            cells.append("-" if found is None else f"{found:,.1f} ({own / found:.2f})")
        rows.append(tuple(cells))
    return ("dB", ours, *others), rows


def codec_page(record: Mapping[str, Any], *, source: str, model: str) -> Report:
    """The page of a record of `smalti.evaluation.codecs`.

    Args:
        record: as `CodecComparison.record` gives it.
        source: of the images, as it was named.
        model: as it was named.
    """
    report = Report("Codecs compared", f"{model} on {record['images']:,} images of {source}")
    protocol = record["protocol"]
    report.facts(
        {
            "images": f"{record['images']:,}, {record['pixels']:,} pixels, {record['channels']} channels",
            "model": f"{model} ({protocol['model'][:16]}, {protocol['preset']})",
            "effort": str(protocol["effort"]),
            "bytes": protocol["bytes"],
            "PSNR": protocol["psnr"],
        }
    )
    for kind, heading in _WORDS.items():
        curves: Mapping[str, Curve] = record[kind]
        if not curves:
            continue
        report.heading(heading)
        series = {name: ([size for size, _ in curve], [psnr for _, psnr in curve]) for name, curve in curves.items()}
        report.lines(heading, _cropped(series), x_label="bytes per image", y_label="PSNR (dB)")
        header, rows = codec_table(curves)
        report.table(
            header, rows, caption="Bytes per image at equal PSNR, and in brackets the share that ours is of it."
        )
    for name, reason in record["left_out"].items():
        report.paragraph(f"Not measured: {name}; {reason}.")
    report.heading("Protocol")
    report.facts({name: _plain(value) for name, value in protocol.items()})
    return report


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {entry}" for name, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _cropped(series: Mapping[str, tuple[list[float], list[float]]]) -> dict[str, tuple[list[float], list[float]]]:
    """The points around the range of the first curve, so that it fills the chart."""
    sizes, levels = next(iter(series.values()))
    most, low, high = 2 * max(sizes), min(levels) - 2, max(levels) + 2
    kept = {}
    for name, (x, y) in series.items():
        inside = [(a, b) for a, b in zip(x, y, strict=True) if a <= most and low <= b <= high]
        kept[name] = ([a for a, _ in inside], [b for _, b in inside])
    return kept
