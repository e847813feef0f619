"""The page and the table of a comparison of codecs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from smalti.report.codec_page import codec_page, codec_table

OURS = [(10.0, 20.2), (40.0, 24.0), (100.0, 28.9)]
OTHERS = {"WebP": [(80.0, 22.0), (320.0, 30.0)], "JPEG": [(500.0, 31.0), (900.0, 35.0)]}


def record(**changes: Any) -> dict[str, Any]:
    protocol = {"model": "ab" * 32, "preset": "codec-tiny", "effort": 8, "bytes": "whole files", "psnr": "pooled",
                "encoders": {"webp": "1.6"}, "qualities": [6, 66]}  # fmt: skip
    found = {"images": 12, "pixels": 3072, "channels": 3, "files": {"smalti": OURS, **OTHERS}, "archives": {},
             "left_out": {"AVIF": "avif is not installed"}, "protocol": protocol}  # fmt: skip
    return found | changes


def test_the_table_has_bytes_at_equal_psnr_and_shares() -> None:
    header, rows = codec_table({"smalti": OURS, **OTHERS})
    assert header == ("dB", "smalti", "WebP", "JPEG")
    assert [row[0] for row in rows] == ["21", "22", "23", "24", "25", "26", "27", "28"]
    assert rows[1][2:] == ("80.0 (0.24)", "-")
    assert rows[3] == ("24", "40.0", "113.1 (0.35)", "-")


def test_a_long_range_has_fewer_rows_and_a_short_one_still_one() -> None:
    _, rows = codec_table({"smalti": [(10.0, 10.0), (1000.0, 50.0)]})
    assert 8 <= len(rows) <= 10
    _, rows = codec_table({"smalti": [(10.0, 20.2), (11.0, 20.4)]})
    assert [row[0] for row in rows] == ["20.3"]
    _, rows = codec_table({"smalti": [(10.0, 20.2)]})
    assert rows == []


def test_the_page_is_well_formed_and_has_what_was_measured() -> None:
    archives = {"smalti archive": OURS, "AVIF mosaic": [(20.0, 21.0), (60.0, 27.0)]}
    page = codec_page(record(archives=archives), source="holiday <&>", model="zoo:thumb").html()
    ET.fromstring(page.partition("\n")[2])
    assert page.count("<svg") == 2
    for said in ("holiday &lt;&amp;&gt;", "zoo:thumb (abababababababab, codec-tiny)", "AVIF mosaic", "113.1 (0.35)",
                 "Not measured: AVIF; avif is not installed.", "webp: 1.6"):  # fmt: skip
        assert said in page
    assert codec_page(record(), source="x", model="y").html().count("<svg") == 1
