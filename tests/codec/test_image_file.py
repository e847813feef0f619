"""Files of one picture: channels, forms, exact pixels, metadata, a golden file, damage."""

from __future__ import annotations

import numpy as np
import pytest
from codec_models import DIGEST, QUALITY, SIDE, discs, drawn_codec, model_of, some_codes, trained_codec

from smalti.codec import image_codec, image_file
from smalti.codec.container import ChunkKind, CoderKind, FullHeader, TinyHeader, read_header, read_single, write_single
from smalti.codec.image_codec import CodecEngine, squared_error
from smalti.codec.image_file import (
    Coded,
    Model,
    encode_picture,
    model_pixels,
    picture_pixels,
    read_codes,
    read_picture_file,
    write_picture,
)
from smalti.data.pictures import Picture
from smalti.errors import CodecError, ConfigError

COLOUR, GREY, CLEAR = 3, 1, 4


def picture(height: int = 19, width: int = 21, channels: int = 3, *, depth: int = 8, **metadata: bytes) -> Picture:
    """A smooth picture with a little noise, whose alpha has opaque, transparent and other parts."""
    chance = np.random.default_rng(channels)
    down, right = np.mgrid[:height, :width]
    waves = np.sin(down[..., None] / 6 + np.arange(channels)) + np.cos(right[..., None] / 9) + 2
    levels = (waves / 4 + chance.normal(0, 0.02, waves.shape)).clip(0, 1)
    if channels == CLEAR:
        levels[..., 3] = ((right - width / 3) / width).clip(0, 0.4) * 2.5
    return Picture(np.rint(levels * ((1 << depth) - 1)).astype(f"u{depth // 8}"), **metadata)


def written(model: Model, given: Picture, *, effort: int = 2, exact: bool = False, quality: int = QUALITY) -> bytes:
    return write_picture(model, encode_picture(model, given, quality, effort=effort), exact=exact)


# --- Channels


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [GREY, COLOUR, CLEAR])
@pytest.mark.parametrize("native", [GREY, COLOUR, CLEAR])
def test_pictures_keep_their_channels_and_depth(native: int, channels: int, depth: int) -> None:
    model, given = model_of(trained_codec(channels=native)), picture(channels=channels, depth=depth)
    if native == GREY and channels != GREY:
        with pytest.raises(ConfigError, match="colours"):
            written(model, given)
        return
    data = written(model, given, quality=70)
    header, chunks = read_single(data)
    assert isinstance(header, FullHeader)
    assert (header.width, header.height, header.channels, header.bit_depth) == (21, 19, channels, depth)
    assert [chunk.kind for chunk in chunks] == ["S", "A"] if (native, channels) == (COLOUR, CLEAR) else ["S"]
    found = read_picture_file(model, data).pixels
    assert (found.shape, found.dtype) == (given.pixels.shape, given.pixels.dtype)
    grey = np.full_like(given.pixels, 1 << (depth - 1))
    assert squared_error(found, given.pixels) < squared_error(grey, given.pixels) / 2
    if native == COLOUR and channels == CLEAR:
        assert np.array_equal(found[..., 3], given.pixels[..., 3])


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(
    ("native", "channels"), [(1, 1), (3, 1), (3, 3), (3, 4), (4, 1), (4, 3), (4, 4)], ids=lambda each: str(each)
)
def test_exact_files_give_back_every_pixel(native: int, channels: int, depth: int) -> None:
    model = model_of(trained_codec(channels=native))
    for given in (picture(channels=channels, depth=depth), picture(SIDE, SIDE, channels, depth=depth)):
        data = written(model, given, exact=True, effort=1)
        found = read_picture_file(model, data).pixels
        assert found.dtype == given.pixels.dtype
        assert np.array_equal(found, given.pixels)
        assert len(data) < given.pixels.nbytes + 120


def test_pixels_for_the_model_and_back() -> None:
    chance = np.random.default_rng(0)
    for channels in (1, 3, 4):
        pixels = chance.integers(0, 65536, (2, 3, 5, channels)).astype(np.uint16)
        for native in (1, 3, 4):
            if native == 1 and channels > 1:
                continue
            adapted = model_pixels(pixels, native)
            assert adapted.shape == (2, 3, 5, native)
            assert adapted.dtype == np.uint16
            back = picture_pixels(adapted, channels)
            kept = min(channels, native)
            assert np.array_equal(back, pixels[..., :kept])
            if native == 4 and channels < 4:
                assert (adapted[..., 3] == 65535).all()


# --- Forms


def test_a_picture_like_the_training_images_gets_the_tiny_form() -> None:
    model, given = model_of(trained_codec()), Picture(discs(1)[0])
    coded = encode_picture(model, given, QUALITY, effort=2)
    tiny, full = write_picture(model, coded), write_picture(model, coded, full=True)
    assert isinstance(read_header(tiny), TinyHeader)
    assert isinstance(read_header(full), FullHeader)
    (stream,) = (chunk.data for chunk in read_single(full)[1])
    assert len(tiny) == 6 + len(stream)
    assert tiny == b"\x9eS\x11" + DIGEST[:2] + bytes([QUALITY]) + stream
    for data in (tiny, full):
        header, codes, others = read_codes(model, data)
        assert np.array_equal(codes, coded.codes)
        assert (header.width, header.height, header.channels, header.bit_depth) == (SIDE, SIDE, 3, 8)
        assert others == {}
    assert np.array_equal(read_picture_file(model, tiny).pixels, read_picture_file(model, full).pixels)


@pytest.mark.parametrize(
    "given",
    [
        picture(SIDE, SIDE + 1), picture(SIDE + 1, SIDE), picture(SIDE, SIDE, 1), picture(SIDE, SIDE, 4),
        picture(SIDE, SIDE, depth=16), picture(SIDE, SIDE, icc=b"profile"), picture(1, 1),
    ],
    ids=["wide", "high", "grey", "clear", "deep", "icc", "dot"],
)  # fmt: skip
def test_all_others_get_the_full_form(given: Picture) -> None:
    model = model_of(trained_codec())
    data = written(model, given)
    assert isinstance(read_header(data), FullHeader)
    found = read_picture_file(model, data)
    assert found.pixels.shape == given.pixels.shape
    assert found.icc == given.icc


def test_metadata_come_back() -> None:
    model = model_of(trained_codec())
    given = picture(icc=b"profile " * 300, exif=b"MM\0*\0\0\0\x08\0\0", xmp=b"<xmp/>")
    found = read_picture_file(model, written(model, given))
    assert (found.icc, found.exif, found.xmp) == (given.icc, given.exif, given.xmp)


def test_long_streams_go_to_the_range_coder(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = model_of(trained_codec()), Picture(discs(1)[0])
    monkeypatch.setattr(image_file, "STATE_SYMBOLS", 48 * 4 - 1)
    data = written(model, given)
    header, codes, _ = read_codes(model, data)
    assert header.coder == CoderKind.RANGE  # in the full form, because the tiny one has no range coder
    monkeypatch.undo()
    assert np.array_equal(codes, read_codes(model, written(model, given))[1])


@pytest.mark.parametrize("neighbours", [False, True], ids=["alone", "neighbours"])
@pytest.mark.parametrize("exact", [False, True])
def test_large_pictures_are_cut_into_regions(neighbours: bool, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_codec, "REGION", 24)
    model, given = model_of(trained_codec(neighbours=neighbours)), picture(37, 51)
    coded = encode_picture(model, given, QUALITY, effort=1)
    data = write_picture(model, coded, exact=exact)
    header, chunks = read_single(data)
    assert isinstance(header, FullHeader)
    assert header.region == (24, 24)
    assert [chunk.kind for chunk in chunks if chunk.kind == ChunkKind.STREAM] == ["S"] * 6
    assert np.array_equal(read_codes(model, data)[1], coded.codes)
    found = read_picture_file(model, data).pixels
    assert np.array_equal(found, given.pixels) or not exact
    # With other regions it is another format.
    monkeypatch.setattr(image_codec, "REGION", 32)
    with pytest.raises(CodecError, match="regions"):
        read_codes(model, data)


# --- The format


def fixed_file(*, full: bool) -> tuple[Model, np.ndarray, bytes]:
    """Of fixed codes and weights, so that no floating-point decision is in it."""
    model, codes = model_of(drawn_codec(channels=1, coefficients=12, groups=3)), some_codes((1, 12, 2, 2))[0]
    return model, codes, write_picture(model, Coded(codes, QUALITY, Picture(discs(1, channels=1)[0])), full=full)


TINY_FILE = (
    "9e5311c8c9287cdb8a8b94520524faffffe41f44505bffaa9cbfbb410b5a530000ffffff3f16102129434760fe2c98feff6808efa281ae6600"
)
FULL_FILE = (
    "9e5312c8c9cacbcccdcecf110100101028414039a13357d428787cdb8a8b94520524faffffe41f44505bffaa9cbfbb410b5a"
    "530000ffffff3f16102129434760fe2c98feff6808efa281ae6600ec2c54c0"
)


@pytest.mark.parametrize(("full", "expected"), [(False, TINY_FILE), (True, FULL_FILE)], ids=["tiny", "full"])
def test_golden_files(full: bool, expected: str) -> None:
    """The format: a change here makes files unreadable."""
    model, codes, data = fixed_file(full=full)
    assert data.hex() == expected
    assert np.array_equal(read_codes(model, bytes.fromhex(expected))[1], codes)


# --- Refusals


def test_the_wrong_model_names_both_digests() -> None:
    codec = trained_codec()
    given = Picture(discs(1)[0])
    coded = encode_picture(model_of(codec), given, QUALITY, effort=0)
    other = model_of(codec, digest=bytes(range(32)))
    for full, named in ((False, DIGEST[:2].hex()), (True, DIGEST[:8].hex())):
        data = write_picture(model_of(codec), coded, full=full)
        with pytest.raises(CodecError) as caught:
            read_picture_file(other, data, source="cat.smt")
        assert f"cat.smt was compressed with the model {named}" in str(caught.value)
        assert bytes(range(8)).hex() in str(caught.value)


def test_a_model_with_the_same_first_bytes_is_found_out_by_the_checksum() -> None:
    data = written(model_of(trained_codec()), Picture(discs(1)[0]))
    with pytest.raises(CodecError, match="another model"):
        read_picture_file(model_of(drawn_codec()), data)


@pytest.mark.parametrize("full", [False, True], ids=["tiny", "full"])
def test_damaged_files_are_refused(full: bool) -> None:
    model, _, data = fixed_file(full=full)
    tried = [data[:length] for length in range(len(data))] + [data + b"\0", data + b"abc"]
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        tried.append(bytes(flipped))
    for bad in tried:
        with pytest.raises(CodecError):
            read_picture_file(model, bad)


def rewritten(data: bytes, **changes: object) -> bytes:
    """A file whose header says something else, with the right checksums."""
    header, chunks = read_single(data)
    return write_single(type(header)(**(vars(header) | changes)), chunks)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"codes_checksum": 5}, "other codes"),
        ({"step": 0}, "step 0"),
        ({"step": 101}, "step 101"),
        ({"payload": 2}, "payload CODES"),
        ({"coder": CoderKind.LANES}, "coder LANES"),
        ({"coder": CoderKind.RANGE}, "another model"),
        ({"channels": 2}, "channels"),
        ({"channels": 4}, "channels"),
        ({"channels": 3}, "channels"),
        ({"width": 40}, "another model"),
        ({"width": 2000}, "1 streams, expected 2"),
    ],
)
def test_headers_that_lie_are_refused(changes: dict[str, object], problem: str) -> None:
    model, _, data = fixed_file(full=True)
    if changes.get("payload") == 2:
        changes = changes | {"payload": image_file.PayloadKind.CODES}
    with pytest.raises(CodecError, match=problem):
        read_picture_file(model, rewritten(data, **changes))


def test_channels_that_no_picture_has_are_refused() -> None:
    """Two of the three that the model gives."""
    model = model_of(trained_codec())
    for channels in (2, 5, 127):
        with pytest.raises(CodecError, match="channels"):
            read_picture_file(model, rewritten(written(model, picture()), channels=channels))


def test_the_pixel_limit_holds_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, data = fixed_file(full=True)
    huge = rewritten(data, width=9000, height=9000)
    monkeypatch.setattr(CodecEngine, "decode", None)
    for bad, limit in ((huge, 10**7), (data, 255)):
        with pytest.raises(CodecError, match="limit"):
            read_picture_file(model, bad, pixel_limit=limit)


def test_a_machine_that_computes_wrongly_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(trained_codec())
    right = CodecEngine.decode
    monkeypatch.setattr(CodecEngine, "decode", lambda *args, **options: right(*args, **options) + 1)
    with pytest.raises(CodecError, match="computes wrongly"):
        written(model, picture())
