"""Self-contained HTML reports with tables, pictures and charts.

The page loads nothing from outside and runs no code: styles are inline, pictures are data URIs, charts are SVG, and a
content security policy forbids everything else. All text is escaped. The page is well-formed XML after its first line,
supports light and dark mode, and is laid out for screens, phones and print.

Pictures: uint8, height x width x channels.
"""

from __future__ import annotations

import base64
import errno
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from smalti.errors import DataError
from smalti.files import output_errors, write_atomically
from smalti.report.axes import Series
from smalti.report.charts import COLOURS, COLOURS_ON_DARK, safe_text, svg_bars, svg_lines

_SMALLEST_SIDE = 256  # small pictures are shown enlarged by integer factors up to about this many pixels
_NUMBER = re.compile(
    r"\s*[-+−±]?[\d.,\u2009\u202f ]*\d(e[-+]?\d+)?\s*(%|dB|s|ms|x|×|k|M|bpp|MB|kB|B)?\s*", re.IGNORECASE
)


class Report:
    """An HTML page built from top to bottom; each method appends one block.

    report = Report("run 7", "VQ-VAE on emoji")
    report.facts({"images": "3786", "PSNR": "24.6 dB"})
    report.picture(sheet, "Originals above, reconstructions below.")
    report.write("report.html")
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        self._subtitle = subtitle
        self._blocks: list[str] = []

    def heading(self, text: str) -> None:
        """Start a section."""
        self._blocks.append(f"<h2>{safe_text(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Text; blank lines separate paragraphs."""
        pieces = [piece for piece in re.split(r"\n\s*\n", text.strip()) if piece]
        self._blocks.extend(f"<p>{safe_text(piece)}</p>" for piece in pieces)

    def facts(self, rows: Mapping[str, str]) -> None:
        """A table of names and values, such as settings and scores."""
        body = "".join(
            f'<tr><th scope="row">{safe_text(k)}</th><td>{safe_text(v)}</td></tr>\n' for k, v in rows.items()
        )
        self._blocks.append(f'<div class="wide"><table class="facts"><tbody>\n{body}</tbody></table></div>')

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
        """A table; columns that contain only numbers are right-aligned.

        Raises:
            DataError: the number of cells in a row differs from that in the header.
        """
        for number, row in enumerate(rows, start=1):
            if len(row) != len(header):
                raise DataError(f"row {number} of a table has {len(row)} cells, but the header has {len(header)}")
        numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]
        kind = [' class="number"' if right else "" for right in numeric]
        head = "".join(f'<th scope="col"{kind[i]}>{safe_text(cell)}</th>' for i, cell in enumerate(header))
        body = "".join(
            "<tr>" + "".join(f"<td{kind[i]}>{safe_text(cell)}</td>" for i, cell in enumerate(row)) + "</tr>\n"
            for row in rows
        )
        title = f"<caption>{safe_text(caption)}</caption>\n" if caption else ""
        self._blocks.append(
            f'<div class="wide"><table>\n{title}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>'
        )

    def picture(self, image: np.ndarray, caption: str, *, alt: str | None = None) -> None:
        """A picture, enlarged without smoothing; transparency is shown over a checkerboard.

        Args:
            image: (H, W, C) uint8 with C in 1, 3, 4, or (H, W).
            caption: printed below.
            alt: alternative text; default: the caption.

        Raises:
            DataError: wrong type or shape.
        """
        shape, channels = image.shape, image.shape[2] if image.ndim == 3 else 1
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in (1, 3, 4) or image.size == 0:
            raise DataError(f"expected a uint8 picture (H, W, 1, 3 or 4), not {image.dtype} of shape {shape}")
        pixels = image[..., 0] if image.ndim == 3 and channels == 1 else image
        encoded = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(encoded, "PNG", optimize=True)
        zoom = max(1, _SMALLEST_SIDE // max(shape[:2]))
        kind = ' class="clear"' if channels == 4 else ""
        words = safe_text(caption if alt is None else alt)
        self._figure(
            f'<img{kind} width="{shape[1] * zoom}" height="{shape[0] * zoom}" alt="{words}" '
            f'src="data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"/>',
            caption,
        )

    def lines(self, title: str, series: Series, *, x_label: str, y_label: str, log_y: bool = False) -> None:
        """A line chart.

        Args:
            title: printed above.
            series: name to (x, y) of equal length; NaN, infinity and, with log_y, non-positive values leave a gap.
            x_label: with the unit.
            y_label: with the unit.
            log_y: logarithmic y axis.

        Raises:
            DataError: x and y of a series differ in length, or are not numbers.
        """
        chart = svg_lines(title, series, x_label=x_label, y_label=y_label, log_y=log_y)
        legend = ""
        if len(series) > 1:
            entries = "".join(
                f'<li><span class="key c{i % len(COLOURS)}"></span>{safe_text(name)}</li>'
                for i, name in enumerate(series)
            )
            legend = f'<ul class="legend">{entries}</ul>\n'
        self._figure(f'{legend}<div class="wide">{chart}</div>', "", title=title)

    def bars(
        self, title: str, values: Sequence[float], *, labels: Sequence[str] | None = None, x_label: str, y_label: str
    ) -> None:
        """A bar chart, in the order given.

        Args:
            title: printed above.
            values: (N,); NaN leaves a gap; more than 640 values are averaged in groups of equal size.
            labels: N names; None numbers the bars from 0.
            x_label: what the bars stand for.
            y_label: what their height stands for, with the unit.

        Raises:
            DataError: the number of labels differs from that of the values, or values are not numbers.
        """
        chart = svg_bars(title, values, labels=labels, x_label=x_label, y_label=y_label)
        self._figure(f'<div class="wide">{chart}</div>', "", title=title)

    def html(self) -> str:
        """The page so far; equal blocks give equal text."""
        subtitle = f'<p class="subtitle">{safe_text(self._subtitle)}</p>\n' if self._subtitle else ""
        body = "\n".join(self._blocks)
        return (
            '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml">\n<head>\n<meta charset="utf-8"/>\n'
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"/>\n"
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
            '<meta name="color-scheme" content="light dark"/>\n<meta name="generator" content="smalti"/>\n'
            f"<title>{safe_text(self._title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n<main>\n"
            f"<header>\n<h1>{safe_text(self._title)}</h1>\n{subtitle}</header>\n{body}\n</main>\n</body>\n</html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page atomically; missing folders are created.

        Raises:
            OutputError: no permission, the disk is full, or `path` is a folder.
        """
        content = self.html().encode()
        target = Path(path)
        with output_errors(target):
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, lambda file: file.write(content))

    def _figure(self, content: str, caption: str, *, title: str = "") -> None:
        above = f'<p class="title">{safe_text(title)}</p>\n' if title else ""
        below = f"\n<figcaption>{safe_text(caption)}</figcaption>" if caption else ""
        self._blocks.append(f"<figure>\n{above}{content}{below}\n</figure>")


def _is_number(cell: object) -> bool:
    text = str(cell)
    return text.strip() in ("", "-", "–", "—", "nan", "inf") or _NUMBER.fullmatch(text) is not None


def _colour_rules(colours: Sequence[str]) -> str:
    return "".join(f".c{i} {{ --mark: {colour}; }}\n" for i, colour in enumerate(colours))


_STYLE = (
    """
:root { --ground: #ffffff; --ink: #1f2429; --soft: #5b6570; --rule: #dfe3e8; --panel: #f6f7f9; --check: #e4e7eb; }
"""
    + _colour_rules(COLOURS)
    + """
@media (prefers-color-scheme: dark) {
:root { --ground: #14171c; --ink: #e3e7ec; --soft: #9aa4b0; --rule: #2d333c; --panel: #1b1f26; --check: #2a3038; }
"""
    + _colour_rules(COLOURS_ON_DARK)
    + """}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 52rem; margin: 0 auto; padding: 3rem 1.25rem 4rem; overflow-wrap: anywhere; }
header { border-bottom: 1px solid var(--rule); padding-bottom: 1.25rem; margin-bottom: 1.75rem; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.015em; margin: 0; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.75rem 0 0.75rem; }
p { margin: 0 0 1rem; max-width: 42rem; }
.subtitle { color: var(--soft); font-size: 1.05rem; margin: 0.4rem 0 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; font-size: 0.92rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: 0.88rem; padding: 0 0 0.5rem; }
th, td { text-align: left; vertical-align: top; padding: 0.42rem 1.6rem 0.42rem 0; border-bottom: 1px solid var(--rule);
  overflow-wrap: normal; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; }
.number { text-align: right; white-space: nowrap; }
.facts { width: auto; min-width: min(100%, 26rem); }
.facts th { color: var(--soft); font-weight: 400; padding-right: 2.5rem; }
.facts td { overflow-wrap: anywhere; }
figure { margin: 1.5rem 0 2rem; padding: 1.1rem 1.1rem 0.9rem; background: var(--panel); border: 1px solid var(--rule);
  border-radius: 10px; break-inside: avoid; }
figcaption { color: var(--soft); font-size: 0.9rem; line-height: 1.45; margin-top: 0.7rem; }
figure .title { font-weight: 600; margin: 0 0 0.4rem; }
img { display: block; max-width: 100%; height: auto; image-rendering: pixelated; border-radius: 3px; }
img.clear { background: repeating-conic-gradient(var(--check) 0% 25%, var(--ground) 0% 50%) 0 0 / 16px 16px; }
.legend { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; list-style: none; margin: 0 0 0.4rem; padding: 0;
  font-size: 0.88rem; color: var(--soft); }
.key { display: inline-block; width: 1.1rem; height: 0.2rem; border-radius: 2px; margin-right: 0.45rem;
  vertical-align: middle; background: var(--mark); }
.chart { display: block; width: 100%; min-width: 30rem; height: auto; font: 11px system-ui, sans-serif; }
.chart .grid { stroke: var(--rule); stroke-width: 1; }
.chart .axis { stroke: var(--soft); stroke-width: 1; }
.chart .tick { fill: var(--soft); font-variant-numeric: tabular-nums; }
.chart .label { fill: var(--soft); font-size: 12px; }
.chart .line { fill: none; stroke: var(--mark); stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.chart .dot, .chart .bar { fill: var(--mark); }
@media print { main { max-width: none; padding: 0; } }
"""
)
