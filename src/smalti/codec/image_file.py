"""Files of one picture, by a trained codec or VQ-VAE: what the container's parts hold.

The tiny form is used for a picture that is just like the model's training images: its size, its channels, 8 bits, no
metadata. All others get the full form. Channels are adapted to the model and restored:

    model      picture    what is coded
    colour     grey       the grey value three times; decoding takes their luma
    colour     alpha      colours by the codec, alpha lossless beside them
    alpha      opaque     alpha 255, dropped after decoding
    grey       colour     refused, because the colour would be lost

`exact` adds the lossless difference to a codec's linear synthesis in integers (codec/lossless.py). Every payload is
decoded and compared when it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from smalti.codec.container import (
    PIXEL_LIMIT,
    Chunk,
    ChunkKind,
    CoderKind,
    FullHeader,
    PayloadKind,
    TinyHeader,
    read_single,
    write_single,
)
from smalti.codec.entropy import EntropyDecoder, EntropyEncoder
from smalti.codec.fields import DIGEST_BYTES, MODEL_ID_BYTES, check_model
from smalti.codec.image_codec import CodecEngine, regions
from smalti.codec.lossless import (
    decode_alpha,
    decode_difference,
    difference_to,
    encode_alpha,
    encode_difference,
    restored,
)
from smalti.codec.range_coder import RangeDecoder, RangeEncoder
from smalti.codec.rans import IntegerDecoder, IntegerEncoder, LaneDecoder, LaneEncoder
from smalti.codec.scalar import codes_checksum, exclude_codes
from smalti.codec.tuning import read_tuning, tune_decoder
from smalti.data.pictures import Picture
from smalti.errors import CodecError, ConfigError

QUALITIES = CodecEngine.steps
STATE_SYMBOLS = 1 << 15  # more than this in a stream go to the range coder, which is faster and packs as well
LUMA = np.array([0.299, 0.587, 0.114])


class Engine(Protocol):
    """What files need of a model: `CodecEngine`, or `CodeEngine` (codec/code_engine.py)."""

    @property
    def payload(self) -> PayloadKind:
        """What its streams encode."""
        ...

    @property
    def steps(self) -> tuple[int, int]:
        """Smallest and largest step index."""
        ...

    @property
    def tile(self) -> int:
        """Side in pixels of what a place of the grid stands for."""
        ...

    @property
    def region(self) -> int:
        """Side in pixels of what is a stream of its own, a multiple of the tile."""
        ...

    def grid(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape (D, h, w) of the codes of a picture."""
        ...

    def codes_of(self, images: np.ndarray, quality: int, *, effort: int) -> np.ndarray:
        """(N, H, W, C) uint8 or uint16 -> (N, D, h, w) int32."""
        ...

    def pixels_of(
        self,
        codes: np.ndarray,
        quality: int,
        height: int,
        width: int,
        *,
        bit_depth: int = 8,
        decoder: str = "faithful",
        tuning: Tensor | None = None,
    ) -> np.ndarray:
        """(N, D, h, w) int32 -> (N, H, W, C) uint8 or uint16."""
        ...

    def encode(self, codes: np.ndarray, step: int, encoder: EntropyEncoder, *, per_stream: int = 1) -> list[bytes]:
        """Streams of codes (N, D, h, w)."""
        ...

    def decode(
        self, decoder: EntropyDecoder, shape: tuple[int, int, int, int], step: int, *, per_stream: int = 1
    ) -> np.ndarray:
        """The inverse of `encode`; CodecError if the streams are damaged."""
        ...


@dataclass(frozen=True)
class Model:
    """A codec, and what its files say about it.

    Attributes:
        engine: its functions.
        digest: SHA-256 of the model, 32 bytes.
        native: (height, width, channels) of the training images.
    """

    engine: Engine
    digest: bytes
    native: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Coded:
    """A picture's codes, and what is beside them.

    Attributes:
        codes: (D, h, w) int32.
        quality: their step index.
        picture: the picture itself.
        tuning: changes of the decoder for it (codec/tuning.py), or empty.
    """

    codes: np.ndarray
    quality: int
    picture: Picture
    tuning: bytes = b""


def encoder_for(kind: CoderKind, lanes: int = 1) -> EntropyEncoder:
    """A new encoder of a kind."""
    if kind == CoderKind.LANES:
        return LaneEncoder(lanes)
    return IntegerEncoder() if kind == CoderKind.STATE else RangeEncoder()


def decoder_for(kind: CoderKind, streams: list[bytes]) -> EntropyDecoder:
    """A decoder of streams of a kind; only lanes take several."""
    if kind == CoderKind.LANES:
        return LaneDecoder(streams)
    return IntegerDecoder(streams[0]) if kind == CoderKind.STATE else RangeDecoder(streams[0])


def model_pixels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """(..., H, W, C) pixels with the model's channels; alpha that the model does not have is left out.

    Raises:
        ConfigError: a grey model and a colour picture.
    """
    found, top = pixels.shape[-1], np.iinfo(pixels.dtype).max
    if found == channels:
        return pixels
    if channels == 1:
        raise ConfigError("the picture has colours, but this codec is for grey ones; convert it, or give another codec")
    colours = np.repeat(pixels, 3, axis=-1) if found == 1 else pixels[..., :3]
    if channels == 3:
        return colours
    opaque = np.full((*pixels.shape[:-1], 1), top, dtype=pixels.dtype)
    return np.concatenate([colours, opaque], axis=-1)


def picture_pixels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Invert `model_pixels`, without the alpha plane of a colour model."""
    if channels == 1 and pixels.shape[-1] != 1:
        return np.rint(pixels[..., :3] @ LUMA).astype(pixels.dtype)[..., None]
    return pixels[..., : min(channels, pixels.shape[-1])]


def encode_picture(model: Model, picture: Picture, quality: int, *, effort: int, tune: int = 0) -> Coded:
    """Search the codes of a picture.

    Args:
        effort: rounds of the search.
        tune: steps of training the decoder's biases on the picture; 0: none.
    """
    pixels = model_pixels(picture.pixels, model.native[2])
    (codes,) = model.engine.codes_of(pixels[None], quality, effort=effort)
    tuning = tune_decoder(_transform(model), pixels, codes, quality, steps=tune) if tune else b""
    return Coded(codes, quality, picture, tuning)


def exclude_unlikely(model: Model, coded: Coded) -> None:
    """Set the codes that are not coded to zero, as `write_picture` does: after that, pixels are those of the file."""
    height, width, _ = coded.picture.pixels.shape
    for y0, x0, y1, x1 in _tile_regions(model, height, width):
        exclude_codes(_transform(model).context, coded.codes[None, :, y0:y1, x0:x1], coded.quality)


def write_picture(model: Model, coded: Coded, *, exact: bool = False, full: bool = False) -> bytes:
    """The file of a picture; with `full` in the full form even where the tiny one would do."""
    picture, codes = coded.picture, coded.codes
    height, width, channels = picture.pixels.shape
    side = model.engine.region
    parts = [codes[:, y0:y1, x0:x1] for y0, x0, y1, x1 in _tile_regions(model, height, width)]
    symbols = max(part.size for part in parts)
    kind = CoderKind.STATE if symbols <= STATE_SYMBOLS else CoderKind.RANGE
    streams = [_stream(model, part[None], coded.quality, kind) for part in parts]
    chunks = [Chunk(ChunkKind.STREAM, stream) for stream in streams]
    chunks += _beside(model, coded, exact)
    native = (height, width, channels) == model.native and picture.bit_depth == 8
    if native and len(chunks) == 1 and kind == CoderKind.STATE and not full:
        return write_single(TinyHeader(digest=model.digest[:MODEL_ID_BYTES], step=coded.quality), chunks)
    header = FullHeader(
        digest=model.digest[:DIGEST_BYTES],
        width=width,
        height=height,
        channels=channels,
        step=coded.quality,
        codes_checksum=codes_checksum(codes),
        payload=model.engine.payload,
        coder=kind,
        bit_depth=picture.bit_depth,
        region=(side, side) if len(parts) > 1 else None,
    )
    return write_single(header, chunks)


def read_codes(
    model: Model, data: bytes, *, pixel_limit: int = PIXEL_LIMIT, source: str = "this file"
) -> tuple[FullHeader, np.ndarray, dict[ChunkKind, bytes]]:
    """Decode the codes of a file of one picture.

    Returns:
        The header (of a tiny file, the full one that says the same), codes (D, h, w) int32, and the other chunks.

    Raises:
        CodecError: the file is damaged, too large, or was written by another model.
    """
    header, chunks = read_single(data, pixel_limit=pixel_limit, source=source)
    check_model(header.digest, model.digest, source=source)
    if isinstance(header, TinyHeader):
        height, width, channels = model.native
        header = FullHeader(
            digest=model.digest[:DIGEST_BYTES], width=width, height=height, channels=channels, step=header.step,
            codes_checksum=0, payload=model.engine.payload, coder=CoderKind.STATE,
        )  # fmt: skip
        tiny = True
    else:
        tiny = False
    low, high = model.engine.steps
    if header.channels not in (1, 3, 4):
        raise CodecError(
            f"{source} says that it has {header.channels} channels, expected 1, 3 or 4; get the file again"
        )
    if header.payload != model.engine.payload or header.coder == CoderKind.LANES or not low <= header.step <= high:
        raise CodecError(
            f"{source} has a payload {header.payload.name}, coder {header.coder.name}, step {header.step}, which this "
            f"kind of model does not write; expected {model.engine.payload.name} with a step from {low} to {high}; get "
            "the file again"
        )
    expected = (model.engine.region,) * 2
    if header.region is not None and header.region != expected:
        raise CodecError(f"{source} has regions of {header.region} pixels, expected {expected}; get the file again")
    dimension, rows, columns = model.engine.grid(header.height, header.width)
    codes = np.zeros((dimension, rows, columns), dtype=np.int32)
    streams = [chunk.data for chunk in chunks if chunk.kind == ChunkKind.STREAM]
    places = _tile_regions(model, header.height, header.width)
    if len(streams) != len(places):
        raise CodecError(f"{source} has {len(streams)} streams, expected {len(places)}; get the file again")
    for stream, (y0, x0, y1, x1) in zip(streams, places, strict=True):
        shape = (1, dimension, y1 - y0, x1 - x0)
        decoder = decoder_for(header.coder, [stream])
        codes[:, y0:y1, x0:x1] = model.engine.decode(decoder, shape, header.step)[0]
    if not tiny and codes_checksum(codes) != header.codes_checksum:
        raise CodecError(f"{source} decodes to other codes than were encoded; it is damaged, get it again")
    return header, codes, {chunk.kind: chunk.data for chunk in chunks if chunk.kind != ChunkKind.STREAM}


def read_picture_file(
    model: Model, data: bytes, *, decoder: str = "faithful", pixel_limit: int = PIXEL_LIMIT, source: str = "this file"
) -> Picture:
    """Decode a file of one picture.

    Raises:
        CodecError: as `read_codes`; or the model has no such decoder.
    """
    header, codes, others = read_codes(model, data, pixel_limit=pixel_limit, source=source)
    height, width, depth = header.height, header.width, header.bit_depth
    tuning = read_tuning(_transform(model), others[ChunkKind.DECODER]) if ChunkKind.DECODER in others else None
    if ChunkKind.RESIDUAL in others:
        base = _transform(model).linear_pixels(codes, header.step, height, width, depth)[..., : header.channels]
        pixels = restored(base, decode_difference(others[ChunkKind.RESIDUAL], base.shape, depth), depth)
    else:
        found = model.engine.pixels_of(
            codes[None],
            header.step,
            height,
            width,
            bit_depth=depth,
            decoder=decoder,
            tuning=tuning if decoder == "faithful" else None,
        )[0]
        pixels = picture_pixels(found, header.channels)
    if ChunkKind.ALPHA in others:
        alpha = decode_alpha(others[ChunkKind.ALPHA], height, width, depth)
        pixels = np.concatenate([pixels, alpha[..., None]], axis=2)
    if pixels.shape[2] != header.channels:
        raise CodecError(f"{source} has {pixels.shape[2]} channels, but says {header.channels}; get the file again")
    return Picture(pixels, others.get(ChunkKind.ICC), others.get(ChunkKind.EXIF), others.get(ChunkKind.XMP))


def _transform(model: Model) -> CodecEngine:
    """The engine of a transform codec, for what only these have.

    Raises:
        CodecError: the model is none.
    """
    if not isinstance(model.engine, CodecEngine):
        raise CodecError("a VQ-VAE has neither exact differences nor changes of its decoder; get the file again")
    return model.engine


def _stream(model: Model, codes: np.ndarray, quality: int, kind: CoderKind) -> bytes:
    """One entropy-coded stream, decoded again and compared."""
    (stream,) = model.engine.encode(codes, quality, encoder_for(kind))
    shape = (codes.shape[0], codes.shape[1], codes.shape[2], codes.shape[3])
    again = model.engine.decode(decoder_for(kind, [stream]), shape, quality)
    if not np.array_equal(again, codes):
        raise CodecError("the file did not decode to its own codes; this machine computes wrongly, or smalti does")
    return stream


def _beside(model: Model, coded: Coded, exact: bool) -> list[Chunk]:
    """The chunks beside the streams."""
    picture, chunks = coded.picture, []
    height, width, channels = picture.pixels.shape
    if channels == 4 and model.native[2] == 3:
        chunks.append(Chunk(ChunkKind.ALPHA, encode_alpha(picture.pixels[..., 3])))
    if coded.tuning and not exact:
        chunks.append(Chunk(ChunkKind.DECODER, coded.tuning))
    if exact:
        base = _transform(model).linear_pixels(coded.codes, coded.quality, height, width, picture.bit_depth)
        kept = min(channels, model.native[2])
        difference = difference_to(base[..., :kept], picture.pixels[..., :kept])
        chunks.append(Chunk(ChunkKind.RESIDUAL, encode_difference(difference, picture.bit_depth)))
    for kind, value in ((ChunkKind.ICC, picture.icc), (ChunkKind.EXIF, picture.exif), (ChunkKind.XMP, picture.xmp)):
        if value:
            chunks.append(Chunk(kind, value))
    return chunks


def _tile_regions(model: Model, height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(top, left, bottom, right) of the regions in tiles."""
    tile, side = model.engine.tile, model.engine.region
    return [
        (top // tile, left // tile, -(-bottom // tile), -(-right // tile))
        for top, left, bottom, right in regions(height, width, side)
    ]
