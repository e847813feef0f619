"""HTML reports: safe, self-contained, well-formed, and written atomically."""

from __future__ import annotations

import base64
import errno
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from smalti.errors import DataError, OutputError
from smalti.report.html import Report

HOSTILE = "</title><script>alert(1)</script><img src=http://x onerror='x'>\"&\0\x1b\ud800]]>"
NS = {"h": "http://www.w3.org/1999/xhtml", "s": "http://www.w3.org/2000/svg"}


def picture(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 12, channels), dtype=np.uint8)


def full(word: str = "word") -> Report:
    """A report with every kind of block and the word in every text field."""
    report = Report(word, word)
    report.heading(word)
    report.paragraph(f"{word}\n\n{word}")
    report.facts({word: word, "PSNR": "24.6 dB"})
    report.table([word, "number"], [[word, "1.5"], ["b", "-2e-3 %"]], word)
    report.picture(picture(), word)
    report.picture(picture(4), word, alt=word)
    report.lines(word, {word: ([1, 2], [3, 4]), "b": ([1], [2])}, x_label=word, y_label=word)
    report.bars(word, [1, 2], labels=[word, "b"], x_label=word, y_label=word)
    return report


def parse(report: Report) -> ElementTree.Element:
    return ElementTree.fromstring(report.html().removeprefix("<!DOCTYPE html>\n"))


class Seen(HTMLParser):
    """Collects tags and attributes like a browser, and checks nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# Safety


def test_hostile_text_stays_text_everywhere() -> None:
    seen = Seen(full(HOSTILE).html())
    assert seen.open == []
    assert set(seen.tags) == set(Seen(full("plain").html()).tags)
    assert len(seen.tags) == len(Seen(full("plain").html()).tags)
    assert not any(name.startswith("on") for _, name, _ in seen.attributes)


def test_hostile_text_can_be_read_as_it_was_meant() -> None:
    title = parse(full(HOSTILE)).findtext(".//h:h1", namespaces=NS)
    assert title == HOSTILE.translate(dict.fromkeys((0, 0x1B, 0xD800), "\ufffd"))


def test_nothing_is_loaded_from_outside_and_nothing_runs() -> None:
    page = full().html()
    seen = Seen(page)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(seen.tags)
    for tag, name, value in seen.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert value.startswith("data:image/png;base64,"), (tag, name)
        elif name == "xmlns":
            assert value in NS.values()
        else:
            assert "//" not in value, (tag, name, value)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    assert not re.search(r"url\(|@import|//", style.group(1))
    policy = [value for tag, name, value in seen.attributes if tag == "meta" and value.startswith("default-src")]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_the_page_is_well_formed_and_deterministic() -> None:
    report = full()
    assert parse(report).tag == f"{{{NS['h']}}}html"
    assert report.html() == report.html() == full().html()
    report.html().encode("utf-8")


def test_an_empty_report_is_a_page() -> None:
    root = parse(Report("nothing yet"))
    assert root.findtext(".//h:title", namespaces=NS) == "nothing yet"
    assert root.find(".//h:main", NS) is not None
    assert root.get("lang") == "en"


# Blocks


def test_blocks_stand_in_the_order_they_were_added() -> None:
    report = Report("t")
    for word in ("first", "second", "third"):
        report.heading(word)
        report.paragraph(f"about {word}")
    order = [element.text for element in parse(report).find(".//h:main", NS) or [] if element.text]
    assert [text for text in order if text.strip()] == [
        "first",
        "about first",
        "second",
        "about second",
        "third",
        "about third",
    ]


def test_an_empty_line_begins_a_paragraph() -> None:
    report = Report("t")
    report.paragraph("one\nstill one\n \ntwo\n")
    assert [p.text for p in parse(report).iterfind(".//h:main/h:p", NS)] == ["one\nstill one", "two"]


def test_facts_are_headed_rows() -> None:
    report = Report("t")
    report.facts({"images": "3786", "rate": "0.5 bpp"})
    rows = parse(report).findall(".//h:table[@class='facts']//h:tr", NS)
    assert [("".join(row[0].itertext()), row[0].get("scope"), row[1].text) for row in rows] == [
        ("images", "row", "3786"),
        ("rate", "row", "0.5 bpp"),
    ]


def test_number_columns_are_aligned_to_the_right() -> None:
    report = Report("t")
    rows = [["1.50", "a", "12 %", "1"], ["−2e-3", "2", "nan", "x"], ["1,024", "3", "3.5 dB", "2"]]
    report.table(["a", "b", "c", "d"], rows, "numbers")
    root = parse(report)
    assert [cell.get("class") for cell in root.iterfind(".//h:thead//h:th", NS)] == ["number", None, "number", None]
    assert [cell.get("class") for cell in root.iterfind(".//h:tbody//h:td", NS)] == ["number", None, "number", None] * 3
    assert root.findtext(".//h:caption", namespaces=NS) == "numbers"


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(DataError, match="row 2 of a table has 1 cells, but the header has 2"):
        Report("t").table(["a", "b"], [["1", "2"], ["3"]])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_are_embedded_without_loss(channels: int) -> None:
    report = Report("t")
    report.picture(picture(channels), "a caption")
    image = parse(report).find(".//h:img", NS)
    assert image is not None
    content = base64.b64decode(str(image.get("src")).removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as opened:
        assert np.array_equal(np.asarray(opened).reshape(8, 12, channels), picture(channels))
    assert image.get("alt") == "a caption"
    assert (image.get("width"), image.get("height")) == (str(12 * 21), str(8 * 21))
    assert image.get("class") == ("clear" if channels == 4 else None)


def test_alt_text_can_differ_from_the_caption_or_be_empty() -> None:
    report = Report("t")
    report.picture(picture(), "caption", alt="what one sees")
    report.picture(picture(), "caption", alt="")
    assert [image.get("alt") for image in parse(report).iterfind(".//h:img", NS)] == ["what one sees", ""]


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="uint8 picture"):
        Report("t").picture(image, "caption")


def test_a_legend_names_the_series_when_there_are_several() -> None:
    report = Report("t")
    report.lines("one", {"train": ([1, 2], [3, 4])}, x_label="x", y_label="y")
    assert parse(report).find(".//h:ul", NS) is None
    report.lines("two", {"train": ([1], [3]), "test": ([1], [3])}, x_label="x", y_label="y")
    assert [item[0].tail for item in parse(report).iterfind(".//h:ul/h:li", NS)] == ["train", "test"]


def test_the_page_has_a_dark_and_a_print_form() -> None:
    page = Report("t").html()
    assert "@media (prefers-color-scheme: dark)" in page
    assert "@media print" in page
    assert 'name="viewport"' in page


# Writing


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    Report("old").write(path)
    full("żółw 🐢").write(str(path))
    assert path.read_text(encoding="utf-8") == full("żółw 🐢").html()
    assert os.listdir(path.parent) == ["report.html"]


def test_a_hostile_page_can_be_written(tmp_path: Path) -> None:
    full(HOSTILE).write(tmp_path / "report.html")
    assert ElementTree.parse(tmp_path / "report.html").getroot() is not None


def test_a_folder_in_the_place_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="it is a folder"):
        Report("t").write(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_failed_write_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def refuse(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match=re.escape(os.strerror(number))) as caught:
        full().write(path)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]
