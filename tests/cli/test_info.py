"""`smalti info` of compressed files; that of checkpoints is in test_cli.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import refused
from PIL import Image
from small_codecs import exif, write_pictures
from small_runs import pixels
from zoo_files import write_zoo

from smalti.pipelines.codec import Codec


def test_a_tiny_file(smalti, codec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = Codec.from_pretrained(codec).card.digest
    Image.fromarray(pixels(1)[0]).save("disc.png")
    assert smalti("compress", codec, "disc.png", "--out", "disc.smi", "--quality", 33, "--effort", 0).code == 0
    size = Path("disc.smi").stat().st_size
    done = smalti("info", "disc.smi")
    assert done.code == 0
    words = " ".join(done.out.split())
    for said in ("form tiny", "quality 33", f"size_bytes {size}", f"model {digest[:4]}", "zoo not in the zoo",
                 "image of the size that its model was trained on", "header 6", f"payload {size - 6}"):  # fmt: skip
        assert said in words
    assert "bits per pixel" not in words
    with monkeypatch.context() as patched:
        write_zoo(tmp_path / "zoo", patched, small=codec / "last.safetensors")
        about = json.loads(smalti("info", "disc.smi", "--json").out)
    assert about["zoo"] == "zoo:small"
    assert about["image"] == "3x16x16 (channels x height x width)"
    assert about["bits per pixel"] == round(8 * size / 256, 5)
    assert sum(about["parts"].values()) == size


def test_a_full_file_by_part(smalti, codec: Path) -> None:
    shape = (20, 24, 4)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(image).save("clear.png", exif=exif(description="noise"))
    assert smalti("compress", codec, "clear.png", "--out", "clear.smi", "--exact", "--effort", 0).code == 0
    about = json.loads(smalti("info", "clear.smi", "--json").out)
    assert (about["form"], about["images"], about["payload"]) == ("full", 1, "scalar")
    assert about["image"] == "4x20x24 (channels x height x width)"
    assert {name for name, size in about["parts"].items() if size} == {
        "header", "payload", "alpha", "residual", "metadata", "checksums"
    }  # fmt: skip


def test_an_archive_and_its_problems(smalti, codec: Path) -> None:
    write_pictures(Path("in"), count=5)
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save("in/left/other.png")
    assert smalti("compress", codec, "in", "--out", "all.smt", "--effort", 0).code == 0
    about = json.loads(smalti("info", "all.smt", "--json").out)
    assert (about["form"], about["images"], about["images per block"], about["names"]) == ("archive", 6, 16, "yes")
    assert about["classes"] == ["left", "right"]
    assert about["bits per pixel"] == round(8 * Path("all.smt").stat().st_size / (5 * 256 + 20 * 24), 5)
    assert about["problems"] == []
    data = Path("all.smt").read_bytes()
    Path("cut.smt").write_bytes(data[:-50])
    done = smalti("info", "cut.smt")
    assert done.code == 1
    assert "cut.smt is damaged in bytes" in done.err
    assert json.loads(smalti("info", "cut.smt", "--json").out)["problems"]


def test_what_is_no_file_of_ours(smalti, codec: Path) -> None:
    for name, data, said in (
        ("zero.smt", b"", "zero.smt is empty; get or make it again"),
        ("other.smi", b"GIF89a", "other.smi begins with 47 49 46"),
        ("newer.smi", b"\x9eS\xf1abc", "was written by a newer version of smalti"),
        ("cut.smi", b"\x9eS\x12abc", "cut.smi was cut short"),
    ):
        Path(name).write_bytes(data)
        refused(smalti("info", name), said)
    refused(smalti("info", "nowhere.smt"), "there is no nowhere.smt")
    shutil.copy(codec / "last.safetensors", "model.safetensors")
    assert "kind" in smalti("info", "model.safetensors").out
