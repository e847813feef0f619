"""Checkpoints: what is written is what is read, and everything else is one clear line."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refused
from safetensors.torch import load_file, save_file
from torch import nn

from smalti.checkpoint import file as checkpoint
from smalti.checkpoint.file import (
    FORMAT,
    Card,
    build,
    card_to_plain,
    digest,
    read,
    read_card,
    write,
)
from smalti.config.autoencoder import ClassicConfig
from smalti.config.contrastive import ContrastiveConfig, VisionTransformerConfig
from smalti.config.gan import DCGANConfig, GANConfig
from smalti.config.kinds import KINDS
from smalti.config.prior import PriorConfig
from smalti.config.quantizer import VectorConfig
from smalti.config.run import RunConfig
from smalti.config.vqvae import VQVAEConfig
from smalti.data.spec import ImageSpec
from smalti.errors import OutputError

CPU = torch.device("cpu")
VQVAE = Card(
    kind="vqvae",
    config=RunConfig(model=VQVAEConfig(ClassicConfig(width=8, residual_width=4), VectorConfig(codes=12, dimension=4))),
    spec=ImageSpec(3, 8, 12),
    classes=(),
    images_seen=640,
    data={"source": "emoji", "fingerprint": "abc"},
    license="CC0-1.0",
    score={"psnr_db": 21.5},
)
GAN = Card(
    kind="gan",
    config=RunConfig(recipe="gan", model=GANConfig(latent=5, network=DCGANConfig(generator_width=8), conditional=True)),
    spec=ImageSpec(3, 8, 8),
    classes=("cat", "chien é", "犬"),
    images_seen=0,
    data={},
)
CONTRASTIVE = Card(
    kind="contrastive",
    config=RunConfig(
        recipe="contrastive",
        model=ContrastiveConfig(VisionTransformerConfig(stem_width=4, stride=4, width=8, depth=1, heads=2)),
    ),
    spec=ImageSpec(1, 8, 12),
    classes=(),
    images_seen=5,
    data={},
)
PRIOR = Card(
    kind="prior",
    config=RunConfig(recipe="prior", model=PriorConfig(width=8, depth=1, heads=2, embedding=4, condition="class")),
    spec=ImageSpec(3, 8, 12),
    classes=("cat", "dog"),
    images_seen=7,
    data={},
    tokenizer=dataclasses.replace(VQVAE, digest="a" * 64),
)
CARDS = {"vqvae": VQVAE, "gan": GAN, "contrastive": CONTRASTIVE, "prior": PRIOR}


def made(card: Card, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(card).eval()


def test_half_the_size_keeps_the_weights_to_eleven_bits(tmp_path: Path) -> None:
    for name, card in CARDS.items():
        whole, half = tmp_path / f"{name}.safetensors", tmp_path / f"{name}-half.safetensors"
        module = made(card)
        first, second = write(whole, module, card), write(half, module, card, half=True)
        assert first.digest != second.digest
        stored = [sum(t.nbytes for t in load_file(path).values() if t.is_floating_point()) for path in (whole, half)]
        assert stored[1] * 2 == stored[0]
        again, _ = read(half)
        for key, tensor in module.state_dict().items():
            back = again.state_dict()[key]
            assert back.dtype == tensor.dtype
            assert torch.allclose(back.float(), tensor.float(), rtol=2**-11, atol=1e-7), key


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    write(path, made(VQVAE), VQVAE)
    return path


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def join(path: Path, header: Any, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def change_entry(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    header, data = split(path)
    entry = json.loads(header["__metadata__"]["smalti"])
    entry = change(entry) or entry
    header["__metadata__"]["smalti"] = json.dumps(entry)
    join(path, header, data)


@pytest.mark.parametrize("kind", CARDS)
def test_what_is_written_is_read(kind: str, tmp_path: Path) -> None:
    path, module = tmp_path / "model.safetensors", made(CARDS[kind])
    card = write(path, module, CARDS[kind])
    again, found = read(path)
    assert found == card == read_card(path)
    assert dataclasses.replace(found, digest="") == CARDS[kind]
    assert len(found.digest) == 64
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    expected = module.state_dict()
    assert list(again.state_dict()) == list(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())
    assert not any(tensor.is_meta for tensor in again.state_dict().values())
    assert digest(found, again.state_dict()) == found.digest
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_what_is_read_computes_the_same(written: Path) -> None:
    x = torch.rand(1, 3, 8, 12) * 2 - 1
    assert torch.equal(read(written)[0].reconstruct(x), made(VQVAE).reconstruct(x))


def test_memory_order_does_not_change_the_file(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    write(paths[0], made(VQVAE), VQVAE)
    write(paths[1], made(VQVAE).to(memory_format=torch.channels_last), VQVAE)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_digest_names_the_model_and_not_the_file() -> None:
    module = made(VQVAE)
    tensors = module.state_dict()
    base = digest(VQVAE, tensors)
    same = dataclasses.replace(VQVAE, images_seen=9, data={}, license="x", version="9", score={}, digest="y")
    assert digest(same, tensors) == base
    config = RunConfig(model=dataclasses.replace(VQVAE.config.model, loss_weight=5.0))
    for other in (
        dataclasses.replace(VQVAE, config=config),
        dataclasses.replace(VQVAE, spec=ImageSpec(3, 12, 8)),
        dataclasses.replace(VQVAE, classes=("a",)),
    ):
        assert digest(other, tensors) != base
    for name, tensor in tensors.items():
        changed = tensor.clone()
        changed.view(-1)[0] += 1
        assert digest(VQVAE, tensors | {name: changed}) != base, name
    flat = tensors["quantizer.codebook"]
    assert digest(VQVAE, tensors | {"quantizer.codebook": flat.view(-1)}) != base
    assert digest(VQVAE, tensors | {"quantizer.codebook": flat.view(torch.int32)}) != base
    assert digest(VQVAE, dict(reversed(tensors.items()))) == base


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.01, 0.1, 0.5, 0.99, 0.99999])
def test_cut_short(written: Path, share: float) -> None:
    content = written.read_bytes()
    written.write_bytes(content[: int(len(content) * share)])
    assert "cut short" in refused(written)
    refused(written, reading=read_card)


def test_bytes_too_many(written: Path) -> None:
    written.write_bytes(written.read_bytes() + b"more")
    refused(written)


@pytest.mark.parametrize("place", [1, 1000, -1])
def test_a_flipped_bit(written: Path, place: int) -> None:
    header, data = split(written)
    flipped = bytearray(data)
    flipped[place] ^= 1
    join(written, header, bytes(flipped))
    line = refused(written, "does not hold what it says")
    assert read_card(written).digest[:16] in line


def test_a_changed_configuration(written: Path) -> None:
    change_entry(written, lambda entry: entry["config"]["model"].update(loss_weight=9.0))
    refused(written, "does not hold what it says")


@pytest.mark.parametrize("kind", ["vqvae", "prior"])
def test_a_file_from_before_a_setting_existed_is_read_with_its_default(tmp_path: Path, kind: str) -> None:
    """Its digest is that of the configuration as it stands in the file; a prior's tokenizer has one too."""
    path = tmp_path / "model.safetensors"
    card = write(path, made(CARDS[kind]), CARDS[kind])
    header, data = split(path)
    entry = json.loads(header["__metadata__"]["smalti"])
    del (entry["tokenizer"] if kind == "prior" else entry)["config"]["model"]["loss_weight"]
    entry["digest"] = digest(card, load_file(path), entry)
    header["__metadata__"]["smalti"] = json.dumps(entry)
    join(path, header, data)
    _, again = read(path)
    assert (again.config, again.tokenizer) == (card.config, card.tokenizer)
    assert again.digest != card.digest


@pytest.mark.parametrize("name", ["other.safetensors", "other.txt", "folder", "missing"])
def test_other_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "other.txt":
        path.write_text("not a checkpoint at all, " * 100)
    elif name == "other.safetensors":
        save_file({"weight": torch.zeros(3)}, path, metadata={"format": "pt"})
    refused(path, "smalti did not write it" if name == "other.safetensors" else "")
    refused(path, reading=read_card)


@pytest.mark.parametrize("version", [0, 3, 99, "1", None])
def test_another_format(written: Path, version: Any) -> None:
    change_entry(written, lambda entry: entry.update(format=version))
    refused(written, f"has the checkpoint format {version!r}, but smalti")


def test_the_format_before_the_release_says_who_wrote_it_and_what_to_do(written: Path) -> None:
    change_entry(written, lambda entry: entry.update(format=1))
    refused(written, "was written by smalti 0.1.0, before its release, in checkpoint format 1")
    refused(written, "train the model again")


@pytest.mark.parametrize("kind", ["gna", "", 3, None])
def test_an_unknown_kind_names_the_nearest(written: Path, kind: Any) -> None:
    def change(entry: dict[str, Any]) -> None:
        entry["config"]["recipe"] = entry["kind"] = kind

    change_entry(written, change)
    refused(
        written,
        "did you mean 'gan'?" if kind == "gna" else f"known: {', '.join(sorted(KINDS))}",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e["config"].update(new=1), "there is no setting 'new'"),
        (lambda e: e["config"]["model"]["quantizer"].update(codes=-1), "model.quantizer.codes is -1"),
        (lambda e: e["config"].update(recipe=["gan"]), "there is no recipe"),
        (lambda e: e["config"].update(recipe="gan", model={}), "contradicts itself"),
        (lambda e: e.update(config=3), "configuration"),
        (lambda e: e.pop("config") and None, ""),
        (lambda e: e.update(kind="gan"), "contradicts itself"),
        (lambda e: e.update(extra=1), ""),
        (lambda e: e.update(digest=7), "contradicts itself"),
        (lambda e: e.update(digest=""), "does not hold what it says"),
        (lambda e: e.update(images_seen="many"), "contradicts itself"),
        (lambda e: e.update(images_seen=True), "contradicts itself"),
        (lambda e: e.update(data=[]), "contradicts itself"),
        (lambda e: e.update(score=None), "contradicts itself"),
        (lambda e: e.update(license=["x"]), "contradicts itself"),
        (lambda e: e.update(version={}), "contradicts itself"),
        (lambda e: e.update(classes=[1]), "contradicts itself"),
        (lambda e: e.update(classes=None), ""),
        (lambda e: e["spec"].pop("width") and None, "image"),
        (lambda e: e["spec"].update(channels=2), "image"),
        (lambda e: e["spec"].update(height=0), "image"),
        (lambda e: e["spec"].update(height=10**9), "image"),
        (lambda e: e["spec"].update(height=float("inf")), "spec"),
        (lambda e: e["spec"].update(kind="picture"), "spec"),
        (lambda e: e["spec"].update(width=[8]), "spec"),
        (lambda e: e.update(spec=7), ""),
        (lambda e: [e], ""),
        (lambda e: "text", ""),
    ],
    ids=range(28),
)
def test_a_card_that_cannot_be(written: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    change_entry(written, change)
    refused(written, message)


@pytest.mark.parametrize("text", ["", "{", "[" * 60_000, '{"a":' * 20_000, "9" * 5000, "NaN", "null"])
def test_a_card_that_is_not_json(written: Path, text: str) -> None:
    header, data = split(written)
    header["__metadata__"]["smalti"] = text
    join(written, header, data)
    refused(written)


@pytest.mark.parametrize(
    "header",
    [
        b"[]", b"{}", b"null", b"\xff\xfe", b"[" * 60_000, b'{"a":' * 20_000, b"9" * 5000, b'{"__metadata__": 3}',
        b'{"__metadata__": {"smalti": 3}}', b'{"a": {"data_offsets": [0, "x"]}}', b'{"a": {"data_offsets": 3}}',
        b'{"a": {"data_offsets": [0]}}', b'{"a": {"data_offsets": [0, 1e999]}}', b'{"a": {"data_offsets": [0, [1]]}}',
        b'{"a": {}}', b'{"a": 1}',
    ],
    ids=range(16),
)  # fmt: skip
def test_a_header_that_cannot_be(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "model.safetensors"
    join(path, header, b"\0" * 16)
    refused(path)
    refused(path, reading=read_card)


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 2**40, 17 * 2**20, 0, 1])
def test_a_header_that_lies_about_its_size(written: Path, size: int) -> None:
    content = written.read_bytes()
    written.write_bytes(struct.pack("<Q", size) + content[8:])
    refused(written, reading=read_card)
    refused(written)


def with_tensors(path: Path, card: Card, tensors: dict[str, torch.Tensor]) -> None:
    """A file whose digest is right, however wrong the rest is."""
    card = dataclasses.replace(card, digest=digest(card, tensors))
    entry = {"format": FORMAT} | card_to_plain(card)
    save_file(tensors, path, metadata={"smalti": json.dumps(entry)})


def test_the_helper_above_writes_what_can_be_read(tmp_path: Path) -> None:
    tensors = made(VQVAE).state_dict()
    with_tensors(tmp_path / "a", VQVAE, tensors)
    model, _ = read(tmp_path / "a")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", ["missing", "extra", "shape", "type", "none"])
def test_tensors_that_do_not_fit(tmp_path: Path, kind: str) -> None:
    tensors = dict(made(VQVAE).state_dict())
    book = tensors.pop("quantizer.codebook")
    if kind == "none":
        tensors = {"x": torch.zeros(1)}
    elif kind == "extra":
        tensors |= {"quantizer.codebook": book, "quantizer.more": torch.zeros(2)}
    elif kind == "shape":
        tensors["quantizer.codebook"] = book[:3].clone()
    elif kind == "type":
        tensors["quantizer.codebook"] = book.to(torch.int32)
    path = tmp_path / "model.safetensors"
    with_tensors(path, VQVAE, tensors)
    line = refused(path, "but its configuration needs")
    if kind != "none":
        assert "quantizer." in line


def test_a_huge_configuration_costs_neither_time_nor_memory(tmp_path: Path) -> None:
    huge = [
        dataclasses.replace(VQVAE, config=RunConfig(model=VQVAEConfig(
            ClassicConfig(width=8192, residual_width=8192, residual_blocks=64, stride=32),
            VectorConfig(codes=2**20, dimension=4096))), spec=ImageSpec(3, 16384, 16384)),
        dataclasses.replace(GAN, config=RunConfig(recipe="gan", model=GANConfig(
            latent=65536, network=DCGANConfig(generator_width=8192))), spec=ImageSpec(4, 16384, 16384)),
    ]  # fmt: skip
    for number, card in enumerate(huge):
        path = tmp_path / f"{number}.safetensors"
        with_tensors(path, card, {"quantizer.codebook": torch.zeros(2, 2)})
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        refused(path, "but its configuration needs")
        assert time.monotonic() - start < 5
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 2**10  # in KiB: under 200 MiB


def test_a_write_that_fails_leaves_the_old_checkpoint(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written.read_bytes()

    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        write(written, made(VQVAE, 1), VQVAE)
    monkeypatch.undo()
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == [written.name]


def test_the_header_limit_is_far_above_ours(written: Path) -> None:
    assert struct.unpack("<Q", written.read_bytes()[:8])[0] * 100 < checkpoint.HEADER_LIMIT
