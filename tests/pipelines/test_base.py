"""What all pipelines have in common: opening the right kind, moving, saving."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import smalti
from smalti.checkpoint.find import find_checkpoint
from smalti.config.kinds import KINDS
from smalti.errors import CheckpointError, ConfigError, OutputError
from smalti.pipelines.base import Pipeline, load_as, pipeline_class

CLASSES = {"vqvae": "Autoencoder", "gan": "GAN", "labelled": "GAN", "eye": "Encoder"}


@pytest.mark.parametrize(("run", "name"), CLASSES.items())
def test_load_gives_the_pipeline_of_the_kind(trained: SimpleNamespace, run: str, name: str) -> None:
    model = smalti.load(getattr(trained, run))
    wanted = getattr(smalti, name)
    assert type(model) is wanted
    assert wanted.from_pretrained(getattr(trained, run)).card == model.card
    assert Pipeline.from_pretrained(getattr(trained, run)).card == model.card
    assert repr(model) == f"{name}('{getattr(trained, run)}/last.safetensors', device='cpu')"
    assert type(model) is pipeline_class(model.card)


@pytest.mark.parametrize(("run", "name"), CLASSES.items())
def test_the_wrong_pipeline_says_which_one_it_is_for(trained: SimpleNamespace, run: str, name: str) -> None:
    for other in {"Autoencoder", "GAN", "Encoder", "Prior"} - {name}:
        with pytest.raises(CheckpointError, match=rf"is for {name}, not for {other}; open it with smalti\.{name}$"):
            getattr(smalti, other).from_pretrained(getattr(trained, run))


def test_each_pipeline_has_only_the_methods_of_its_kind() -> None:
    words = {name: dir(kind.load_pipeline()) for name, kind in KINDS.items()}
    has = {name: {word for word in found if not word.startswith("_")} for name, found in words.items()}
    assert set.intersection(*has.values()) == {
        "autocast", "from_pretrained", "missing", "provenance", "save_pretrained", "to"
    }  # fmt: skip
    assert "generate" in has["gan"] & has["prior"]
    assert not {"generate", "fill", "features", "invert"} & has["vqvae"]
    assert not {"fill", "vary", "encode", "reconstruct", "features"} & has["gan"]
    assert not {"generate", "encode", "decode"} & has["contrastive"]
    assert not {"invert", "synthesize", "encode", "reconstruct"} & has["prior"]


def test_who_needs_one_kind_is_told_what_another_lacks(trained: SimpleNamespace) -> None:
    for run, wanted, said in (
        ("vqvae", smalti.GAN, "is a vqvae, which draws no new images; give a model trained with a gan preset"),
        ("gan", smalti.Autoencoder, "is a gan, which cannot reconstruct images"),
        ("gan", smalti.Encoder, "is a gan, which has no features"),
        ("eye", smalti.Prior, "is a contrastive, which knows no codes"),
    ):
        with pytest.raises(CheckpointError, match=said):
            load_as(getattr(trained, run), wanted)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("run", ["vqvae", "gan", "eye"])
def test_a_saved_copy_is_the_same_model(trained: SimpleNamespace, tmp_path: Path, run: str, half: bool) -> None:
    model = smalti.load(getattr(trained, run))
    (tmp_path / "folder").mkdir()
    for place, file in (("folder", "folder/model.safetensors"), ("a.safetensors", "a.safetensors")):
        assert model.save_pretrained(tmp_path / place, half=half) == tmp_path / file
        copy = smalti.load(tmp_path / place)
        assert find_checkpoint(tmp_path / place) == tmp_path / file
        assert (copy.card.digest == model.card.digest) is not half
        for name, tensor in copy.module.state_dict().items():
            expected = model.module.state_dict()[name]
            expected = expected.half().float() if half and expected.is_floating_point() else expected
            assert torch.equal(tensor, expected)


def test_a_copy_that_cannot_be_written(trained: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*file/model\.safetensors"):
        smalti.load(trained.gan).save_pretrained(tmp_path / "file" / "model.safetensors")


def test_a_model_moves_to_other_types_and_devices(trained: SimpleNamespace) -> None:
    model = smalti.GAN.from_pretrained(trained.gan, device="cpu")
    assert model.dtype == torch.float32
    exact = model.generate(2, seed=1)
    assert model.to("cpu", dtype=torch.bfloat16) is model
    assert model.dtype == torch.bfloat16
    assert np.abs(model.generate(2, seed=1).astype(int) - exact).mean() < 3
    with pytest.raises(ConfigError, match="cannot be used"):
        model.to("cuda:99")
    with pytest.raises(ConfigError, match=r"`dtype` is torch\.int64, but must be one of torch\.float32"):
        model.to(dtype=torch.int64)


@pytest.mark.parametrize("run", ["vqvae", "eye"])
def test_half_the_precision_is_near_the_whole(trained: SimpleNamespace, run: str) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    model = smalti.load(getattr(trained, run))
    use = model.reconstruct if run == "vqvae" else model.features
    exact = use(pictures).astype(float)
    model.to(dtype=torch.bfloat16)
    assert np.abs(use(pictures) - exact).mean() <= 0.1 * np.abs(exact).mean() + 1e-3
