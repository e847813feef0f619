"""docs/format.md, section Payload: a decoder written from that page alone decodes what smalti writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from codec_models import QUALITY, drawn_codec, some_codes, write_codec
from container_reader import read_archive, read_image
from payload_reader import (
    ModelFile,
    codes_checksum,
    exact_samples,
    prediction,
    read_alpha,
    read_difference,
    read_stream,
)

from smalti.codec.entropy import EntropyEncoder
from smalti.codec.image_archive import ImageArchiveWriter
from smalti.codec.image_file import Coded, Model, write_picture
from smalti.codec.range_coder import RangeEncoder
from smalti.codec.rans import IntegerEncoder, LaneEncoder
from smalti.codec.scalar import encode_codes
from smalti.data.pictures import Picture
from smalti.pipelines.base import load
from smalti.pipelines.codec import Codec

both = pytest.mark.parametrize("neighbours", [False, True], ids=["alone", "neighbours"])


def written(folder: Path, *, neighbours: bool, channels: int = 3, half: bool = False) -> tuple[Model, ModelFile]:
    """A codec as smalti reads it from its file, and as the page's reader does."""
    codec = drawn_codec(neighbours=neighbours, channels=channels)
    path = write_codec(folder / "codec.safetensors", codec, neighbours=neighbours, half=half)
    loaded = load(path)
    assert isinstance(loaded, Codec)
    return loaded.model, ModelFile(path)


def array(codes: list[dict[tuple[int, int, int], int]], shape: tuple[int, ...]) -> np.ndarray:
    return np.array([image[place] for image in codes for place in np.ndindex(shape[1:])]).reshape(shape)


@both
@pytest.mark.parametrize(
    ("make", "coder"), [(IntegerEncoder, 1), (lambda: LaneEncoder(1), 2), (RangeEncoder, 3)], ids=["1", "2", "3"]
)
def test_the_page_decodes_streams(
    tmp_path: Path, neighbours: bool, make: Callable[[], EntropyEncoder], coder: int
) -> None:
    """Of two images of 3 x 2 tiles: with escapes, with excluded coefficients, with all coders."""
    model, page = written(tmp_path, neighbours=neighbours)
    codes = some_codes((2, 48, 3, 2), spread=6)
    before = codes.copy()
    streams = encode_codes(model.engine.context, codes, QUALITY, make(), per_stream=2)
    assert (codes != before).any()  # those that are excluded
    found = read_stream(page, streams[0], coder, QUALITY, 2, 3, 2)
    assert np.array_equal(array(found, codes.shape), codes)


@both
def test_the_page_decodes_every_quality(tmp_path: Path, neighbours: bool) -> None:
    model, page = written(tmp_path, neighbours=neighbours, half=True)
    for quality in (1, 17, 50, 83, 100):
        codes = some_codes((1, 48, 1, 2), seed=quality)
        (stream,) = encode_codes(model.engine.context, codes, quality, IntegerEncoder())
        assert np.array_equal(array(read_stream(page, stream, 1, quality, 1, 1, 2), codes.shape), codes)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_page_decodes_files(tmp_path: Path, channels: int) -> None:
    """The tiny form, and the full form with alpha and the exact difference, in 8 and 16 bits."""
    model, page = written(tmp_path, neighbours=False, channels=channels)
    chance = np.random.default_rng(channels)
    for height, width, depth in ((16, 16, 8), (9, 13, 8), (11, 8, 16)):
        for exact in (False, True):
            codes = some_codes((1, 48, -(-height // 8), -(-width // 8)), seed=height)[0]
            alpha = channels == 3 and height != 16
            top = 1 << depth
            pixels = chance.integers(0, top, (height, width, channels + alpha)).astype(f"u{depth // 8}")
            data = write_picture(model, Coded(codes, QUALITY, Picture(pixels)), exact=exact)
            header, chunks = read_image(data)
            assert page.digest.startswith(header["digest"])
            tiny = "width" not in header
            assert tiny == (height == 16 and not exact)
            (stream,) = (chunk for kind, chunk in chunks if kind == "S")
            (found,) = read_stream(page, stream, header.get("coder", 1), header["step"], 1, *codes.shape[1:])
            assert np.array_equal(array([found], (1, *codes.shape))[0], codes)
            assert tiny or header["codes_checksum"] == codes_checksum([found], *codes.shape)
            others = dict(chunks)
            assert ("A" in others, "X" in others) == (alpha, exact)
            if alpha:
                plane = read_alpha(others["A"], height, width, depth)
                assert plane == pixels[..., 3].ravel().tolist()
            if exact:
                base = prediction(page, found, QUALITY, height, width, depth, channels)
                difference = read_difference(others["X"], height, width, channels)
                samples = exact_samples(base, difference, channels, depth)
                assert samples == pixels[..., :channels].ravel().tolist()


def test_the_page_decodes_archives(tmp_path: Path) -> None:
    model, page = written(tmp_path, neighbours=False)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    with ImageArchiveWriter(model, tmp_path / "a.smt", quality=QUALITY, effort=0, per_block=2) as archive:
        for image in pixels:
            archive.add(Picture(image))
    header, blocks = read_archive((tmp_path / "a.smt").read_bytes())
    assert [len(block) for block in blocks] == [2, 2, 1]
    codes = model.engine.codes_of(pixels, QUALITY, effort=0)
    encode_codes(model.engine.context, codes, QUALITY, LaneEncoder(3), per_stream=2)  # sets excluded ones to zero
    for number, block in enumerate(blocks):
        found = read_stream(page, block[0][0], header["coder"], header["step"], len(block), 2, 2)
        part = codes[2 * number : 2 * number + 2]
        assert np.array_equal(array(found, part.shape), part)
