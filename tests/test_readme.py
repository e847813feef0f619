"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from small_runs import small_config, small_data

import smalti
from smalti import cli
from smalti.config.parse import override
from smalti.config.presets import PRESETS, preset
from smalti.features.extractor import EXTRACTORS
from smalti.quantize import QUANTIZERS, VectorQuantizer
from smalti.runtime.device import Machine
from smalti.training.loop import train

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
QUANTIZERS_GUIDE = (ROOT / "docs" / "quantizers.md").read_text(encoding="utf-8")
GANS_GUIDE = (ROOT / "docs" / "gan.md").read_text(encoding="utf-8")
FENCED = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
BLOCKS = FENCED.findall(README)
COMMANDS = [
    line[2:].split("#")[0].strip()
    for guide in (README, GUIDE, QUANTIZERS_GUIDE, GANS_GUIDE)
    for kind, text in FENCED.findall(guide)
    if kind == "console"
    for line in text.splitlines()
    if line.startswith("$ ") and " smalti " in f" {line[2:]}"
]


def test_the_working_session_is_in_the_first_thirty_lines() -> None:
    first = "\n".join(README.splitlines()[:30])
    for word in ("make demo", "smalti train", "smalti generate", "smalti.load"):
        assert word in first


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("git ")])
def test_commands_are_understood(command: str) -> None:
    words = shlex.split(command)
    words = words[words.index("smalti") + 1 :]
    _, bound, unused, *_ = cli.app.parse_known_args(words)
    assert not unused
    if words[0] == "train":
        override(preset(bound.args[0]), bound.kwargs.get("set_", ()))


def test_python_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small networks and short budgets in the places of the README's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    train(small_config("dcgan"), small_data(tmp_path), "runs/gan", machine=Machine("cpu", "float32"))
    snippets = [text for kind, text in BLOCKS if kind == "python"]
    assert len(snippets) == 2
    small = small_config("vqvae", "train.images=10k")
    for snippet in snippets:
        text = snippet.replace('smalti.preset("vqvae")', "small").replace("budget_seconds=60", "budget_seconds=0.2")
        names: dict[str, object] = {"small": small}
        exec(compile(text, "README.md", "exec"), names)
        if "images" in names:
            assert names["images"].shape == (3, 32, 32, 3)  # type: ignore[attr-defined]
            assert names["codes"].shape == (3, 1, 8, 8)  # type: ignore[attr-defined]
    assert (tmp_path / "grid.png").exists()


def test_the_guide_to_evaluation_works_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    snippets = [text for kind, text in FENCED.findall(GUIDE) if kind == "python"]
    assert len(snippets) == 1
    exec(compile(snippets[0], "evaluation.md", "exec"), {})
    assert capsys.readouterr().out.startswith("frechet_distance ")


def test_the_guide_to_evaluation_has_every_extractor() -> None:
    for name in EXTRACTORS:
        assert f"| `{name}` |" in GUIDE


def test_the_guide_to_quantizers_works_as_it_stands_and_names_them_all() -> None:
    snippets = [text for kind, text in FENCED.findall(QUANTIZERS_GUIDE) if kind == "python"]
    assert len(snippets) == 1
    names: dict[str, object] = {}
    exec(compile(snippets[0], "quantizers.md", "exec"), names)
    assert names["values"].shape == (8, 64, 16, 16)  # type: ignore[attr-defined]
    for name in QUANTIZERS:
        assert f"| `{name}` |" in QUANTIZERS_GUIDE
    for name, row in PRESETS.items():
        assert row.config.recipe != "vqvae" or f"| `{name}` |" in QUANTIZERS_GUIDE


def test_the_guide_to_gans_works_as_it_stands_and_names_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = small_config("gan-nano", "model.latent=64")
    train(config, small_data(tmp_path), "runs/gan", machine=Machine("cpu", "float32"))
    snippets = [text for kind, text in FENCED.findall(GANS_GUIDE) if kind == "python"]
    assert len(snippets) == 1
    names: dict[str, object] = {"smalti": smalti}
    exec(compile(snippets[0], "gan.md", "exec"), names)
    assert names["z"].shape == (2, 64)  # type: ignore[attr-defined]
    assert names["pictures"].shape == (2, 16, 16, 3)  # type: ignore[attr-defined]
    for name, row in PRESETS.items():
        assert row.config.recipe != "gan" or f"| `{name}` |" in GANS_GUIDE


def test_the_migration_from_the_most_used_layer_gives_the_same() -> None:
    peer = pytest.importorskip("vector_quantize_pytorch")
    there = peer.VectorQuantize(dim=64, codebook_size=512, decay=0.99, commitment_weight=0.25, accept_image_fmap=True)
    here = VectorQuantizer(512, 64, decay=0.99, commitment=0.25)
    here.codebook.copy_(there.codebook)
    z = torch.randn(2, 64, 4, 4, generator=torch.Generator().manual_seed(0))
    there.eval()
    here.eval()
    values, codes, _ = there(z)
    q = here(z)
    assert torch.equal(q.codes[:, 0], codes)
    torch.testing.assert_close(q.values, values)
    torch.testing.assert_close(here.decode(codes[:, None]), there.get_output_from_indices(codes))


def test_every_preset_is_named_and_every_link_leads_somewhere() -> None:
    for name in PRESETS:
        assert f"`{name}`" in README
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_two_commands_are_what_ci_runs() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "`make test`" in README
    makefile = (ROOT / "Makefile").read_text()
    assert "demo:" in makefile
    assert "-c constraints.txt" in makefile
