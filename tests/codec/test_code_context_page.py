"""docs/format.md, codes of a VQ-VAE: a decoder written from that page alone decodes what smalti writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from codes_payload_reader import CodesModel, read_codes
from container_reader import read_archive, read_image
from networks import strong
from payload_reader import Codes, codes_checksum, read_alpha

from smalti.checkpoint import file as checkpoint
from smalti.codec.code_context import encode_codes
from smalti.codec.entropy import EntropyEncoder
from smalti.codec.image_archive import ImageArchiveWriter
from smalti.codec.image_file import Coded, write_picture
from smalti.codec.range_coder import RangeEncoder
from smalti.codec.rans import IntegerEncoder, LaneEncoder
from smalti.config.autoencoder import ClassicConfig
from smalti.config.code_context import CodeContextConfig
from smalti.config.quantizer import (
    BinaryConfig,
    ProductConfig,
    QuantizerConfig,
    ResidualConfig,
    ScalarConfig,
    SimConfig,
    VectorConfig,
)
from smalti.config.run import RunConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.data.pictures import Picture
from smalti.data.spec import ImageSpec
from smalti.models.autoencoder.autoencoder import Autoencoder
from smalti.models.codec.code_context import CompressedAutoencoder
from smalti.pipelines.base import load
from smalti.pipelines.code_codec import CodeCodec

SIDE = 8
VECTOR = VectorConfig(codes=9, dimension=3)
QUANTIZERS = [
    VECTOR, SimConfig(codes=7, dimension=3), ScalarConfig(levels=(3, 4)), BinaryConfig(bits=3),
    VectorConfig(codes=5000, dimension=3),  # two symbols
    ResidualConfig(layer=VECTOR, depth=3), ResidualConfig(layer=VECTOR, depth=2, shared=True),
    ProductConfig(layer=BinaryConfig(bits=13), groups=2), ProductConfig(layer=VECTOR, groups=2),
]  # fmt: skip


def written(path: Path, quantizer: QuantizerConfig, *, half: bool = False) -> tuple[CodeCodec, CodesModel]:
    """A VQ-VAE and its net, untrained, as smalti reads them from their file, and as the page's reader does."""
    torch.manual_seed(0)
    autoencoder = ClassicConfig(stride=2, width=8, residual_width=4)
    config, spec = VQVAEConfig(autoencoder=autoencoder, quantizer=quantizer), ImageSpec(3, SIDE, SIDE)
    tokenizer = strong(Autoencoder(config, 3))
    for name, buffer in tokenizer.named_buffers():
        if name.endswith("codebook"):
            buffer.copy_(torch.randn_like(buffer))
    inner = checkpoint.write(path, tokenizer, checkpoint.Card("vqvae", RunConfig("vqvae", config), spec, (), 0, {}))
    net_config = CodeContextConfig(embedding=4, width=16)
    network = CompressedAutoencoder(net_config, tokenizer)
    sizes = quantizer.codebook_sizes
    network.context.fit([torch.randn(size, 3) for size in sizes], [torch.rand(size) + 0.01 for size in sizes])
    network.context.last.data.mul_(10)  # far from uniform
    card = checkpoint.Card("context", RunConfig("context", net_config), spec, (), 0, {}, tokenizer=inner)
    checkpoint.write(path, network, card, half=half)
    loaded = load(path)
    assert isinstance(loaded, CodeCodec)
    return loaded, CodesModel(path)


def random_codes(sizes: tuple[int, ...], count: int, grid: tuple[int, int]) -> np.ndarray:
    chance = np.random.default_rng(0)
    return np.stack([chance.integers(0, size, (count, *grid)) for size in sizes], axis=1)


def array(codes: list[Codes], shape: tuple[int, ...]) -> np.ndarray:
    return np.array([image[place] for image in codes for place in np.ndindex(shape[1:])]).reshape(shape)


def name_of(quantizer: QuantizerConfig) -> str:
    return f"{quantizer.name}-{'x'.join(map(str, quantizer.codebook_sizes))}"


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=name_of)
def test_the_page_decodes_codes_of_every_quantizer(tmp_path: Path, quantizer: QuantizerConfig) -> None:
    model, page = written(tmp_path / "vq.safetensors", quantizer, half=True)
    assert (page.stride, tuple(page.planes)) == (2, model.codebook_sizes)
    codes = random_codes(model.codebook_sizes, 1, (2, 3))
    (stream,) = encode_codes(model.context, codes, IntegerEncoder())
    assert np.array_equal(array(read_codes(page, stream, 1, 1, 2, 3), codes.shape), codes)


@pytest.mark.parametrize(
    ("make", "coder"), [(IntegerEncoder, 1), (lambda: LaneEncoder(1), 2), (RangeEncoder, 3)], ids=["1", "2", "3"]
)
def test_the_page_decodes_codes_of_several_images(
    tmp_path: Path, make: Callable[[], EntropyEncoder], coder: int
) -> None:
    model, page = written(tmp_path / "vq.safetensors", ResidualConfig(layer=VECTOR, depth=2))
    codes = random_codes(model.codebook_sizes, 3, (4, 3))
    (stream,) = encode_codes(model.context, codes, make(), per_stream=3)
    assert np.array_equal(array(read_codes(page, stream, coder, 3, 4, 3), codes.shape), codes)


def test_the_page_decodes_files_of_codes(tmp_path: Path) -> None:
    """The tiny form; the full form of another size, with alpha."""
    model, page = written(tmp_path / "vq.safetensors", VECTOR)
    chance = np.random.default_rng(1)
    for shape in ((SIDE, SIDE, 3), (7, 11, 3), (5, 6, 4)):
        pixels = chance.integers(0, 256, shape, dtype=np.uint8)
        codes = model.engine.codes_of(pixels[None, ..., :3], 0, effort=0)[0]
        header, chunks = read_image(write_picture(model.model, Coded(codes, 0, Picture(pixels))))
        assert page.digest.startswith(header["digest"])
        assert header["step"] == 0
        tiny = "width" not in header
        assert tiny == (shape == (*page.native[:2], 3))
        height, width = page.native[:2] if tiny else (header["height"], header["width"])
        grid = (-(-height // page.stride), -(-width // page.stride))
        parts = dict(chunks)
        (found,) = read_codes(page, parts["S"], header.get("coder", 1), 1, *grid)
        assert np.array_equal(array([found], (1, *codes.shape))[0], codes)
        assert tiny or (header["payload"], header["codes_checksum"]) == (2, codes_checksum([found], 1, *grid))
        if shape[2] == 4:
            assert read_alpha(parts["A"], *shape[:2], 8) == pixels[..., 3].ravel().tolist()


def test_the_page_decodes_archives_of_codes(tmp_path: Path) -> None:
    model, page = written(tmp_path / "vq.safetensors", VECTOR)
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)
    with ImageArchiveWriter(model.model, tmp_path / "a.smt", quality=0, effort=0, per_block=2) as archive:
        for image in pixels:
            archive.add(Picture(image))
    header, blocks = read_archive((tmp_path / "a.smt").read_bytes())
    assert (header["payload"], header["step"], [len(block) for block in blocks]) == (2, 0, [2, 2, 1])
    codes = model.engine.codes_of(pixels, 0, effort=0)
    for number, block in enumerate(blocks):
        part = codes[2 * number : 2 * number + 2]
        found = read_codes(page, block[0][0], header["coder"], len(block), *part.shape[2:])
        assert np.array_equal(array(found, part.shape), part)
