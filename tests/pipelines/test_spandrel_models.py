"""Networks of other projects: what is used of spandrel's documented interface, and what is said without it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_runs import pixels
from torch import Tensor, nn

from smalti.errors import CheckpointError
from smalti.pipelines.spandrel_models import is_foreign, load_foreign, restorer_of


class Descriptor:
    """What spandrel documents of an `ImageModelDescriptor`, around nearest enlargement with a convolution."""

    purpose = "SR"

    def __init__(self, scale: int = 2, channels: int = 3, multiple_of: int = 4) -> None:
        self.model = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale, self.input_channels, self.output_channels = scale, channels, channels
        self.size_requirements = SimpleNamespace(minimum=0, multiple_of=multiple_of, square=False)
        self.tiling = "SUPPORTED"

    def eval(self) -> Descriptor:
        self.model.eval()
        return self

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        assert image.shape[:2] == (1, self.input_channels)
        assert image.min() >= 0
        assert image.max() <= 1
        return nn.functional.interpolate(self.model(image), scale_factor=self.scale, mode="nearest").clamp_(0, 1)


def test_a_model_of_spandrel_is_a_restorer() -> None:
    torch.manual_seed(0)
    descriptor, image = Descriptor(), pixels(1, side=70)[0][:50]
    model = restorer_of(descriptor, Path("x.pth"))
    assert (model.scale, model.needs_hole, model.degradation) == (2, False, "not known")
    found = model.restore(image)
    wanted = descriptor(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - wanted * 255).max() <= 0.51
    tiled = model.restore(image, tile=32)
    assert np.abs(tiled.astype(int) - found).max() <= 1
    assert model.restore(image[..., :1]).shape == (100, 140, 1)


def test_what_is_no_restorer_is_refused() -> None:
    descriptor = Descriptor()
    descriptor.output_channels = 1
    with pytest.raises(CheckpointError, match="takes 3 channels and gives 1; expected 1 or 3 of both"):
        restorer_of(descriptor, Path("x.pth"))
    descriptor.purpose = "Inpainting"
    with pytest.raises(CheckpointError, match="fills holes"):
        restorer_of(descriptor, Path("x.pth"))


def fake(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    """Stands for spandrel, which is not installed where these tests run."""
    module = ModuleType("spandrel")
    module.ModelLoader = lambda device: SimpleNamespace(load_from_state_dict=load)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spandrel", module)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_weights_go_to_spandrel(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, path = {"weight": torch.ones(2)}, tmp_path / name
    if name.endswith("pth"):
        torch.save({"params": weights}, path)
    else:
        save_file(weights, path)
    assert is_foreign(path)
    given = {}

    def load(state: dict[str, Tensor]) -> Descriptor:
        given.update(state)
        return Descriptor(scale=1)

    fake(monkeypatch, load)
    assert load_foreign(path).scale == 1
    assert torch.equal(given["weight"], weights["weight"])


def test_files_that_are_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(state: object) -> None:
        raise ValueError("Unsupported model architecture.")

    fake(monkeypatch, unknown)
    path = tmp_path / "a.pth"
    for content, said in (
        (nn.Linear(1, 1), "is no file of weights alone"),
        ([1, 2], "holds no table of tensors"),
        ({}, "holds no table of tensors"),
        ({"a": torch.ones(1)}, "spandrel does not know the network of .*Unsupported model architecture"),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=said):
            load_foreign(path)
    path.write_bytes(b"no pickle")
    with pytest.raises(CheckpointError, match="is no file of weights alone"):
        load_foreign(path)
    assert not is_foreign(tmp_path)
    assert not is_foreign(tmp_path / "none.pth")


def test_without_spandrel_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, smalti) -> None:
    torch.save({"a": torch.ones(1)}, "net.pth")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    done = smalti("restore", "net.pth", "a.png", "--out", "out")
    assert done.code == 1
    assert "net.pth was not written by smalti, and spandrel, which loads such networks" in done.err
    assert "pip install 'smalti[spandrel]', which brings a torchvision that must fit the installed torch" in done.err
    assert done.err.count("\n") == 1
