"""The structure of the package: floors, no circles, tests that stand where their source stands."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import smalti

ROOT = Path(smalti.__file__).parent
TESTS = Path(__file__).parent

# From the bottom. A file imports from lower floors, and from its own folder. Folders on one floor know nothing of each
# other. `smalti/__init__.py` is free: it names what is imported on first use.
FLOORS = (
    ("_version", "errors"),
    ("files", "runtime", "provenance"),
    ("config", "data", "nn", "losses"),
    ("optim", "augment", "quantize", "metrics"),
    ("models", "report"),
    ("checkpoint",),
    ("features", "codec", "export"),
    ("recipes", "pipelines", "explain"),
    ("training", "evaluation"),
    ("cli", "serve"),
    ("__main__",),
)
HEIGHT = {name: number for number, floor in enumerate(FLOORS) for name in floor}
SOURCES = sorted(ROOT.rglob("*.py"))
LOOSE = {"__init__", "__main__", "_version", "errors", "files"}  # files of ours at the top of the package
MOST_ROOMS = 26  # folders and loose files at the top
# Tests of the program as a whole, and of what is not in the package.
WHOLE = {"test_examples", "test_floors", "test_imports", "test_readme", "test_sliced"}


def module_name(path: Path) -> str:
    parts = ("smalti", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """The modules of ours that a file imports, anywhere in it, with the line; not those for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
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


def test_the_top_of_the_package_holds_few_rooms() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    loose = {path.stem for path in ROOT.glob("*.py")}
    assert loose == LOOSE
    assert len(folders | loose) <= MOST_ROOMS
    assert len(FLOORS) <= 12


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_file_imports_only_from_lower_floors(path: Path) -> None:
    here = area(module_name(path))
    if not here:
        return  # smalti/__init__.py
    assert here in HEIGHT, f"smalti.{here} stands on no floor: add it to the table of this test"
    for module, line in imports(path):
        there = area(module)
        assert there, f"{path}:{line} imports smalti itself; import the module that has what is needed"
        if there == here:
            continue
        assert there in HEIGHT, f"{path}:{line} imports {module}, which stands on no floor"
        assert HEIGHT[there] < HEIGHT[here], (
            f"{path}:{line}: {here} (floor {HEIGHT[here]}) imports {module} (floor {HEIGHT[there]})"
        )


def test_no_two_files_need_each_other() -> None:
    """Imports inside functions count too: a circle that is imported late is still a circle."""
    graph = {name: {module for module, _ in imports(path)} - {name} for name, path in MODULES.items() if area(name)}
    order = tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the files
    assert len(order) >= len(graph)


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_a_test_stands_where_its_source_stands(path: Path) -> None:
    """tests/A/B/test_X.py or test_X_more.py is about src/smalti/A/B/X.py, or about the folder B as a whole."""
    folder = ROOT / path.relative_to(TESTS).parent
    if path.parent == TESTS and path.stem in WHOLE:
        return
    assert folder.is_dir(), f"{path} stands in no folder of the package"
    names = {source.stem for source in folder.glob("*.py")} | {folder.name}
    about = path.stem.removeprefix("test_")
    assert any(about == name or about.startswith(f"{name}_") for name in names), (
        f"{path} is about none of {', '.join(sorted(names))}"
    )


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
