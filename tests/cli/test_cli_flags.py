"""One file for each command, and flags only where the command line is."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import smalti
from smalti import cli
from smalti.cli.apps import app, data_app, evaluate_app

ROOT = Path(smalti.__file__).parent
COMMANDS = {
    **dict.fromkeys(("train", "generate", "invert", "reconstruct", "encode", "decode", "fill", "vary", "info"), app),
    **dict.fromkeys(
        ("compress", "decompress", "compare_codecs", "degrade", "restore", "restyle", "presets", "zoo", "demo"), app
    ),
    **dict.fromkeys(("inspect", "pack"), data_app),
    **{
        f"evaluate_{name}": evaluate_app
        for name in ("generator", "folder", "autoencoder", "prior", "encoder", "compare", "doctor")
    },
}
# What several commands share; the rest of the folder are commands.
SHARED = {
    "__init__", "apps", "batch_images", "before_after", "console", "demo_report", "evaluation", "generators", "options",
    "outputs", "picture_jobs", "progress", "versions",
}  # fmt: skip
# Words of the command line in other places: CSS in the page, and how a figure of a preset was measured.
EXEMPT = {"report/html.py", "config/presets.py"}
KEYS = {"--effort"}  # a word of a file format: data/codes.py
FLAG = re.compile(r"(?<![\w-])--[a-z]")


@pytest.fixture(autouse=True, scope="module")
def whole_tree() -> None:
    for name in cli.SUBCOMMANDS:
        cli.load_subcommands(name)


def test_every_file_is_a_command_or_shared() -> None:
    assert {path.stem for path in (ROOT / "cli").glob("*.py")} == set(COMMANDS) | SHARED


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_stands_in_the_file_of_its_name(name: str) -> None:
    tree, command = COMMANDS[name], name.removeprefix("evaluate_").replace("_", "-")
    function = tree[command].default_command
    assert function is getattr(importlib.import_module(f"smalti.cli.{name}"), name)
    assert function.__module__ == f"smalti.cli.{name}"


def test_every_command_that_is_registered_is_in_the_table() -> None:
    for tree, prefix in ((app, ""), (data_app, ""), (evaluate_app, "evaluate_")):
        listed = {f"{prefix}{name}".replace("-", "_") for name in tree if not name.startswith("-")}
        assert listed - {"data", "evaluate"} == {name for name, owner in COMMANDS.items() if owner is tree}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a file with their lines, docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, owners) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.lineno, node.value


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.rglob("*.py")) if path.relative_to(ROOT).parts[0] not in ("cli", "serve")],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_the_library_knows_no_flags(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() in EXEMPT:
        return
    found = [f"{path}:{line}: {text!r}" for line, text in texts(path) if FLAG.search(text) and text not in KEYS]
    assert not found, "name arguments with smalti.errors.arg: " + "\n".join(found)
