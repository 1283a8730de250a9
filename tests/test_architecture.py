"""The house rules that a reader relies on: floors, no cycles, no registry, no tunnels, small files."""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import get_args

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "vit").rglob("*.py"))
FLOORS = [
    {"__init__", "checks", "environment", "files", "names", "processes", "spec", "tokens"},
    {"attention"},
    {"layers"},
    {"models", "data"},
    {"bundle", "card", "export", "meta", "analysis"},
    {"tasks"},
    {"commandline"},
    {"run", "evaluate"},
    {"experiments", "demo", "explain", "check", "probe"},
    {"cli", "__main__"},
]
DICTATED = {  # a ** parameter is part of these signatures, which are not ours
    "remembering_init": "wraps any constructor",
    "log_hyperparams": "Lightning's Logger",
    "instantiate_trainer": "LightningCLI",
}
TOP = {".ci", ".gitignore", "LICENSE", "Makefile", "README.md", "configs", "data", "notebooks", "pyproject.toml"}
TOP |= {"requirements.lock", "results", "tests", "vit"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path) for path in FILES}


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all imports, those inside functions too; ``from a import b`` is a.b where that is a module."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in MODULES else str(node.module)


def ours(path: Path) -> Iterator[str]:
    yield from (name for name in imports(path) if name.split(".")[0] == "vit" and name != "vit")


def floor(name: str) -> int:
    part = name.split(".")[1] if "." in name else "__init__"
    return next((number for number, parts in enumerate(FLOORS) if part in parts), -1)


def folder(name: str) -> str:
    """vit for the files right inside it."""
    return ".".join(name.split(".")[:2]) if (ROOT / "vit" / name.split(".")[1]).is_dir() else "vit"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_has_a_floor(path: Path) -> None:
    assert floor(module(path)) >= 0, f"give {path} a floor in tests/test_architecture.py"


@pytest.mark.parametrize("path", [path for path in FILES if path != Path("vit/__init__.py")], ids=str)
def test_imports_go_downward(path: Path) -> None:
    me = module(path)
    for name in ours(path):
        inside = folder(name) == folder(me) and floor(name) == floor(me)
        assert inside or floor(name) < floor(me), f"{me} (floor {floor(me)}) imports {name} (floor {floor(name)})"


def test_models_and_data_do_not_know_each_other() -> None:
    found = {
        (me.split(".")[1], name.split(".")[1])
        for path in FILES
        for me in [module(path)]
        if "." in me
        for name in ours(path)
    }
    assert found.isdisjoint({("models", "data"), ("data", "models")})


def test_imports_have_no_cycles() -> None:
    graph = {module(path): set(ours(path)) - {module(path)} for path in FILES if path != Path("vit/__init__.py")}
    assert list(TopologicalSorter(graph).static_order())


def test_only_one_file_imports_albumentations() -> None:
    users = [path.as_posix() for path in FILES if any(name.split(".")[0] == "albumentations" for name in imports(path))]
    assert users == ["vit/data/augment.py"]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_registry_no_tunnel_no_hasattr(path: Path) -> None:
    assert "registry" not in (ROOT / path).read_text().lower()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and node.args.kwarg is not None:
            name = getattr(node, "name", "lambda")
            assert name in DICTATED, f"{path}:{node.lineno} {name} takes **{node.args.kwarg.arg}"
        assert not (isinstance(node, ast.Name) and node.id == "hasattr"), f"{path}:{node.lineno} asks hasattr"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_and_functions_stay_small(path: Path) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= 250
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{path}:{node.lineno} {node.name} is too long"


@pytest.mark.parametrize("name", ["vit", "vit.cli"])
def test_importing_is_light(name: str) -> None:
    code = f"import sys, {name}; print(*{{'torch', 'lightning', 'timm', 'matplotlib', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", ["vit.attention", "vit.layers", "vit.models"])
def test_factories_promise_no_final_class(name: str) -> None:
    """jsonargparse takes no options for a callable whose return type is @final: it could have no subclass to choose."""
    factories = {n: value for n, value in vars(importlib.import_module(name)).items() if n.endswith("Factory")}
    assert factories
    for factory, returned in ((n, get_args(value)[-1]) for n, value in factories.items()):
        assert not inspect.getattr_static(returned, "__final__", False), f"{factory} returns {returned.__name__}"


def test_top_level_layout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: what else lies here is not ours")
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split("/")[0] for line in done.stdout.splitlines()} == TOP
