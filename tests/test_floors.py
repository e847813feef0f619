"""Imports go one way: a file imports from lower floors, or from its own package folder."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import smalti

ROOT = Path(smalti.__file__).parent

# From the top. A folder stands for all its files; `smalti` itself holds the version and lazy names, and is free.
FLOORS = (
    ("__main__",),
    ("cli", "serve"),  # what a user types
    ("commands", "demo"),  # what the command line does, apart from parsing it
    ("measuring",),  # models and images through `evaluate`
    ("api",),
    ("presets", "train"),
    ("starting",),  # of the loop, as the two below: only train.py needs them
    ("saver",),  # what the loop writes
    ("feeding",),  # and reads
    ("prior_model",),
    ("filling",),
    ("recipes", "runfolder", "latents", "inversion", "grouping", "codec", "explain", "trust"),
    ("evaluate",),  # scores anybody's images; above checkpoint, because one of its feature extractors is ours
    ("checkpoint",),
    ("models",),
    ("data", "quantize", "losses"),  # each knows nothing of the others
    ("layers", "machine", "pixels", "progress", "shell"),  # the last two print, and know nothing of what they print
    ("config", "files"),  # config is below layers: an optimizer is built from its settings
    ("autoencoder_config", "gan_config", "prior_config", "quantizer_config"),
    ("optimizer_config",),
    ("checked", "units"),
    ("errors",),
)
HEIGHT = {name: len(FLOORS) - number for number, floor in enumerate(FLOORS) for name in floor}
SOURCES = sorted(ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = ("smalti", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imports(path: Path, *, inside_functions: bool = True) -> Iterator[tuple[str, int]]:
    """The modules of ours that a file imports, wherever in it, with the line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    delayed = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not inside_functions and id(node) in delayed:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.split(".")[0] == "smalti")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write smalti.…"
            if node.module and node.module.split(".")[0] == "smalti":
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield (whole if whole in MODULES else node.module), node.lineno


def area(module: str) -> str:
    """`smalti.data.images` -> `data`; `smalti` -> ``."""
    return module.partition(".")[2].partition(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_file_imports_only_from_lower_floors(path: Path) -> None:
    here = area(module_name(path))
    if not here:
        return  # smalti/__init__.py: names for type checkers, imported on first use
    assert here in HEIGHT, f"smalti.{here} stands on no floor: add it to the table of this test"
    for module, line in imports(path):
        there = area(module)
        if there in ("", here):
            continue
        assert there in HEIGHT, f"{path}:{line} imports {module}, which stands on no floor"
        assert HEIGHT[there] < HEIGHT[here], (
            f"{path}:{line}: {here} (floor {HEIGHT[here]}) imports {module} (floor {HEIGHT[there]})"
        )


def test_no_two_files_need_each_other_to_be_imported() -> None:
    graph = {name: {module for module, _ in imports(path, inside_functions=False)} - {"smalti", name}
             for name, path in MODULES.items() if name != "smalti"}  # fmt: skip
    for name in graph:
        # A package's own files are imported after its __init__ has begun, so it does not count as needed by them.
        graph[name] -= {name.rpartition(".")[0]}
    order = tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the files
    assert len(order) >= len(graph)


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_nothing_runs_code_from_a_file(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for name, node in _calls(tree):
        where = f"{path}:{node.lineno}"
        assert name not in ("eval", "exec", "compile", "__import__", "os.system"), where
        # Keys of a pickle may be read with a restricted Unpickler, never with pickle itself.
        assert name not in ("pickle.load", "pickle.loads", "dill.load", "joblib.load"), where
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name == "torch.load":
            assert options.get("weights_only") == "True", where
        if name in ("np.load", "numpy.load"):
            assert options.get("allow_pickle", "False") == "False", where
        assert options.get("shell") != "True", where


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_torchvision_is_never_needed(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not any(name.split(".")[0] == "torchvision" for name in names), f"{path}:{node.lineno}"
