"""What the README and the documentation show works as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_codes import small_codes
from small_runs import pixels, small_config, small_data

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
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
GUIDE = PAGES["evaluation.md"]
QUANTIZERS_GUIDE = PAGES["quantizers.md"]
GANS_GUIDE = PAGES["gan.md"]
CODEC_GUIDE = PAGES["codec.md"]
FENCED = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
COMMANDS = sorted(
    {
        line[2:].split("#")[0].strip()
        for text in (README, *PAGES.values())
        for kind, block in FENCED.findall(text)
        if kind == "console"
        for line in block.splitlines()
        if line.startswith("$ ") and " smalti " in f" {line[2:]}"
    }
)


def snippets_of(text: str) -> list[str]:
    return [block for kind, block in FENCED.findall(text) if kind == "python"]


def run_snippets(text: str, name: str, **names: object) -> dict[str, object]:
    """Run the Python of a page, one snippet after the other; what it has defined at the end."""
    for snippet in snippets_of(text):
        exec(compile(snippet, name, "exec"), names)
    return names


def test_the_working_session_is_in_the_first_thirty_lines() -> None:
    first = "\n".join(README.splitlines()[:30])
    for word in ("make demo", "smalti train", "smalti generate", "smalti.load"):
        assert word in first


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("git ")])
def test_commands_are_understood(command: str) -> None:
    words = shlex.split(command)
    words = words[words.index("smalti") + 1 :]
    cli.load_subcommands(words[0])
    _, bound, unused, *_ = cli.app.parse_known_args(words)
    assert not unused
    if words[0] == "train":
        override(preset(bound.args[0]), bound.kwargs.get("set_", ()))


def test_python_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small networks and short budgets in the places of the README's and the page's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    machine = Machine("cpu", "float32")
    train(small_config("dcgan"), small_data(tmp_path), "runs/gan", machine=machine)
    train(small_config("prior-nano"), small_codes(tmp_path), "runs/prior", machine=machine)
    assert len(snippets_of(README)) == 1
    run_snippets(README, "README.md")
    assert (tmp_path / "grid.png").exists()
    (tmp_path / "grid.png").unlink()

    page = (
        PAGES["python.md"].replace('smalti.preset("vqvae")', "small").replace("budget_seconds=60", "budget_seconds=0.2")
    )
    assert len(snippets_of(page)) == 5
    names = run_snippets(page, "python.md", small=small_config("vqvae", "train.images=10k"))
    shapes = {name: tuple(names[name].shape) for name in ("originals", "codes", "latents", "latent", "pair", "drawn")}  # type: ignore[attr-defined]
    assert shapes["originals"] == (3, 32, 32, 3)
    assert shapes["codes"] == (3, 1, 8, 8)
    assert shapes["latents"] == (2, *shapes["latent"])
    assert shapes["pair"] == (2, 16, 16, 3)
    assert shapes["drawn"][0] == 4
    assert [image.size for image in names["images"]] == [(32, 32)] * 3  # type: ignore[attr-defined]
    assert (tmp_path / "grid.png").exists()


def test_the_guide_to_evaluation_works_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(snippets_of(GUIDE)) == 1
    run_snippets(GUIDE, "evaluation.md")
    assert capsys.readouterr().out.startswith("frechet_distance ")


def test_the_guide_to_evaluation_has_every_extractor() -> None:
    for name in EXTRACTORS:
        assert f"| `{name}` |" in GUIDE


def test_the_guide_to_quantizers_works_as_it_stands_and_names_them_all() -> None:
    assert snippets_of(QUANTIZERS_GUIDE)
    names = run_snippets(QUANTIZERS_GUIDE, "quantizers.md")
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
    assert len(snippets_of(GANS_GUIDE)) == 1
    names = run_snippets(GANS_GUIDE, "gan.md", smalti=smalti)
    assert names["latents"].shape == (2, 64)  # type: ignore[attr-defined]
    assert names["images"].shape == (2, 16, 16, 3)  # type: ignore[attr-defined]
    for name, row in PRESETS.items():
        assert row.config.recipe != "gan" or f"| `{name}` |" in GANS_GUIDE


def test_the_guide_to_compression_works_as_it_stands_and_names_the_presets(
    codec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(codec, "runs/thumb")
    Image.fromarray(pixels(1, side=24)[0]).save("cat.jpg")
    assert len(snippets_of(CODEC_GUIDE)) == 2
    names = run_snippets(CODEC_GUIDE, "codec.md")
    assert names["pixels"].shape == (24, 24, 3)  # type: ignore[attr-defined]
    assert names["seventh"].shape == (32, 32, 3)  # type: ignore[attr-defined]
    assert names["size"] == (24, 24)
    for name, row in PRESETS.items():
        assert row.config.recipe != "codec" or f"| `{name}` |" in CODEC_GUIDE


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
        assert f"`{name}`" in PAGES["features.md"]
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    for name, page in PAGES.items():
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page):
            assert target.startswith("https://") or (ROOT / "docs" / target).exists(), f"{name}: {target}"


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    assert len(README.splitlines()) < 90
    in_the_site_alone = {"contributing.md", "changelog.md"}
    for name in PAGES.keys() - in_the_site_alone:
        assert f"(docs/{name})" in README
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        assert f": {path.relative_to(ROOT / 'docs').as_posix()}\n" in navigation


def test_the_two_commands_are_what_ci_runs() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "`make test`" in README
    makefile = (ROOT / "Makefile").read_text()
    assert "demo:" in makefile
    assert "CONSTRAINTS ?= constraints.txt\n" in makefile
    assert "$(addprefix -c ,$(CONSTRAINTS))" in makefile
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    assert "run: bash .ci/run\n" in workflow
    assert "run: make docs" in workflow
    assert "os: [ubuntu-latest, macos-latest, windows-latest]" in workflow
    assert 'python: ["3.11", "3.12", "3.13", "3.14"]' in workflow


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ".venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e"),
        (("CONSTRAINTS=",), ".venv/bin/python -m pip install --quiet --disable-pip-version-check -e"),
        (("OS=Windows_NT",), ".venv/Scripts/python -m pip install"),
    ],
)
def test_make_installs_pinned_versions_unless_told_otherwise(words: tuple[str, ...], expected: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    command = ["make", "--always-make", "--dry-run", "OS=Linux", *words, "lint"]
    ours = {"CONSTRAINTS", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS"}  # of a make that runs these tests
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    assert expected in " ".join(done.stdout.split())
