"""Evaluation reports contain the whole record, and show images completely and without smoothing."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from smalti.errors import DataError
from smalti.metrics.metric import MetricValue
from smalti.report import record
from smalti.report.evaluation_page import (
    CLASSES_IN_TABLE,
    SHEET_WIDTH,
    Curve,
    Histogram,
    Neighbours,
    evaluation_page,
    explanation,
)
from smalti.report.html import Report
from smalti.report.record import Evaluation

GOLDEN = Path(__file__).with_name("golden_evaluation.json")
NS = {"h": "http://www.w3.org/1999/xhtml", "s": "http://www.w3.org/2000/svg"}
HOSTILE = "</title><script>alert(1)</script>"


def parse(page: Report) -> ElementTree.Element:
    return ElementTree.fromstring(page.html().removeprefix("<!DOCTYPE html>\n"))


def words(page: Report) -> str:
    return " ".join(" ".join(parse(page).itertext()).split())


def shown(page: Report) -> list[np.ndarray]:
    """The pictures of a page, as pixels."""
    found = []
    for image in parse(page).iterfind(".//h:img", NS):
        content = base64.b64decode(str(image.get("src")).removeprefix("data:image/png;base64,"))
        with Image.open(io.BytesIO(content)) as opened:
            found.append(np.asarray(opened))
    return found


def images(count: int, side: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def golden() -> Evaluation:
    return record.read(GOLDEN)


def headings(page: Report) -> list[str]:
    return [str(element.text) for element in parse(page).iterfind(".//h:h2", NS)]


# Text


def test_all_of_the_record_is_on_the_page() -> None:
    page = evaluation_page(golden())
    text = words(page)
    for part in (
        "Evaluation of runs/cats",
        "10,000 images of a generator, against cifar10 (test split), 10,000 images",
        "FD (efficientnet-lite0, 128 px)",
        "12.35",
        "11.90 to 12.80",
        "Biased upwards by about 0.4.",
        "inf dB",
        "fewer images than features",
        "кошка 🐈",
        "0.750",
        "extractor, digest abababababababab…",
        "128x128 pixels",
        "neighbours 5",
        "2026-01-31T12:00:00+00:00, smalti 0.2.0",
        "smalti evaluate generator runs/cats",
        "torch 2.6.0, cpu",
        explanation("frechet_distance"),
    ):
        assert part in text, part


def test_warnings_stand_before_the_figures() -> None:
    assert headings(evaluation_page(golden())) == [
        "Read this first",
        "Figures",
        "Class by class",
        "What the figures mean",
        "How it was measured",
        "What was measured",
    ]
    quiet = dataclasses.replace(golden(), warnings=(), classes=())
    assert headings(evaluation_page(quiet))[0] == "Figures"
    assert "Class by class" not in headings(evaluation_page(quiet))


def test_the_least_record_makes_a_page() -> None:
    least = Evaluation("folder", {}, {}, {}, (), date="2026-01-31T12:00:00Z")
    assert parse(evaluation_page(least)).findtext(".//h:h1", namespaces=NS) == "Evaluation of images"
    assert "Images of a folder" in words(evaluation_page(least))


def test_hostile_words_stay_words() -> None:
    made = dataclasses.replace(
        golden(),
        subject={"path": HOSTILE, HOSTILE: [HOSTILE, {"a": HOSTILE}]},
        reference={"source": HOSTILE, "split": HOSTILE},
        figures=(MetricValue("ssim", 0.5, None, None, 3, unit=HOSTILE, note=HOSTILE),),
        warnings=(HOSTILE,),
        command=(HOSTILE,),
    )
    page = evaluation_page(
        made,
        pictures=[(HOSTILE, images(2))],
        histograms=[Histogram(HOSTILE, {HOSTILE: np.arange(4.0), "b": np.arange(4.0)}, HOSTILE)],
    )
    assert not parse(page).findall(".//h:script", NS)


# Pictures


def test_a_sheet_shows_every_image_enlarged_by_a_whole_factor() -> None:
    sheet = shown(evaluation_page(golden(), pictures=[("all", images(30))]))[0]
    assert sheet.shape[1] <= SHEET_WIDTH
    pitch = 48 + 2
    columns = (sheet.shape[1] - 2) // pitch
    for i, image in enumerate(images(30)):
        top, left = 2 + i // columns * pitch, 2 + i % columns * pitch
        assert np.array_equal(sheet[top : top + 48, left : left + 48], image.repeat(6, 0).repeat(6, 1))


def test_one_picture_is_shown_as_it_is() -> None:
    assert np.array_equal(shown(evaluation_page(golden(), pictures=[("one", images(1)[0])]))[0], images(1)[0])


def test_large_images_are_shrunk_and_it_says_so() -> None:
    large = np.full((3, 300, 600, 3), 90, np.uint8)
    page = evaluation_page(golden(), pictures=[("three", large)])
    assert shown(page)[0].shape[1] <= SHEET_WIDTH
    assert "Three. Shown at 160x80 of their 600x300 pixels." in words(page)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pairs_lie_one_above_the_other(channels: int) -> None:
    before, after = images(5, channels=channels), images(5, channels=channels, seed=1)
    sheet = shown(evaluation_page(golden(), pairs=[("pairs", before, after)]))[0].reshape(-1, 2 + 5 * 50, channels)
    assert np.array_equal(sheet[2:50:6, 2:50:6], before[0])
    assert np.array_equal(sheet[52:100:6, 2:50:6], after[0])


def test_neighbours_stand_right_of_their_image() -> None:
    judged, nearest = images(6), images(18, seed=1).reshape(6, 3, 8, 8, 3)
    distances = np.linspace(1, 2, 18).reshape(6, 3)
    page = evaluation_page(golden(), neighbours=Neighbours(judged, nearest, distances))
    sheet = shown(page)[0]
    assert sheet.shape[1] <= SHEET_WIDTH
    group = 48 + 6 + 3 * 48 + 2 * 2
    lefts = [2 + column * (group + 24 + 2) for column in range((sheet.shape[1] - 2) // (group + 24 + 2))]
    assert len(lefts) == 3
    for i in range(6):
        top, left = 2 + i // 3 * 50, lefts[i % 3]
        assert np.array_equal(sheet[top : top + 48 : 6, left : left + 48 : 6], judged[i])
        for k in range(3):
            begin = left + 54 + k * 50
            assert np.array_equal(sheet[top : top + 48 : 6, begin : begin + 48 : 6], nearest[i, k])
    assert "The nearest are 1.000 to 1.882 away in the features." in words(page)


@pytest.mark.parametrize(
    ("neighbours", "message"),
    [
        (Neighbours(images(2), images(4)), "must be \\(N, K, H, W, C\\)"),
        (Neighbours(images(2), images(6).reshape(3, 2, 8, 8, 3)), "must be \\(N, K, H, W, C\\)"),
        (Neighbours(images(2), images(4).reshape(2, 2, 8, 8, 3), np.ones((2, 3))), "expected \\(N, K\\)"),
        (Neighbours(images(2, channels=2), images(4, channels=2).reshape(2, 2, 8, 8, 2)), "expected uint8 images"),
    ],
)
def test_neighbours_that_do_not_fit_are_refused(neighbours: Neighbours, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluation_page(golden(), neighbours=neighbours)


def test_pictures_that_are_none_are_refused() -> None:
    with pytest.raises(DataError, match="expected uint8 images"):
        evaluation_page(golden(), pictures=[("empty", images(0))])
    with pytest.raises(DataError, match="one shape"):
        evaluation_page(golden(), pairs=[("unlike", images(2), images(3))])


# Charts


def outline(page: Report, colour: int) -> list[tuple[float, float]]:
    """The points of a line of the first chart, in drawn units."""
    path = parse(page).find(f".//s:path[@class='line c{colour}']", NS)
    assert path is not None
    points = str(path.get("d")).removeprefix("M").split("L")
    return [(float(point.split()[0]), float(point.split()[1])) for point in points]


def test_histograms_are_shares_so_that_sets_of_any_size_compare() -> None:
    values = np.random.default_rng(0).normal(5, 1, 400)
    page = evaluation_page(
        golden(), histograms=[Histogram("distances", {"all": values, "thrice": np.tile(values, 3)}, "distance")]
    )
    assert outline(page, 0) == outline(page, 1)
    assert "% of images" in words(page)


@pytest.mark.parametrize(
    "values", [np.full(5, 3.0), np.zeros(3), np.array([1.0, np.nan, np.inf]), np.empty(0), np.array([1e-300, 1e300])]
)
def test_odd_histograms_are_drawn(values: np.ndarray) -> None:
    page = evaluation_page(golden(), histograms=[Histogram("odd", {"odd": values}, "x")])
    assert "odd" in words(page)
    assert not re.search(r'="[^"]*\b(nan|inf)\b', page.html()), "a place in a drawing that is no number"


def test_curves_are_drawn() -> None:
    page = evaluation_page(golden(), curves=[Curve("FD over N", {"FD": ([1, 2], [3, 2])}, "images", "FD")])
    assert len(outline(page, 0)) == 2
    assert "FD over N" in words(page)


def test_many_classes_show_the_worst_in_the_table_and_all_as_bars() -> None:
    rows = [
        {"name": f"class {i}", "precision": 0.5, "recall": 0.5, "f1": float("nan") if i == 70 else i / 100, "count": 3}
        for i in range(80)
    ]
    page = evaluation_page(dataclasses.replace(golden(), classes=tuple(rows)))
    tables = parse(page).findall(".//h:table", NS)
    (table,) = [
        t for t in tables if t.findtext("h:caption", "", NS).startswith(f"The {CLASSES_IN_TABLE} classes of 80")
    ]
    names = [row[0].text for row in table.iterfind(".//h:tbody/h:tr", NS)]
    assert names == ["class 70", *(f"class {i}" for i in range(CLASSES_IN_TABLE - 1))]
    assert len(parse(page).findall(".//s:rect[@class='bar c0']", NS)) == 79
