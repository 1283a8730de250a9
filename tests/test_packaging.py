"""The lock file says the same as pyproject.toml. Offline: no index is asked."""

import ast
import re
import sys
import tomllib
from collections import defaultdict
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
INSTALLED = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
USED = [Requirement(line) for lines in INSTALLED for line in lines]
REQUIREMENTS = [*USED, *(Requirement(line) for lines in PROJECT["dependency-groups"].values() for line in lines)]
ENTRY = re.compile(r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[^\s;\\]+)")


def locked() -> dict[str, list[str]]:
    """Versions by name; there are several where they depend on the Python version."""
    found = defaultdict(list)
    for match in map(ENTRY.match, LOCK.splitlines()):
        if match:
            found[canonicalize_name(match["name"])].append(match["version"])
    return found


def asked_for() -> set[str]:
    """Names that the lock says this project asked for itself."""
    names, name = set(), ""
    for line in LOCK.splitlines():
        match = ENTRY.match(line)
        name = canonicalize_name(match["name"]) if match else name
        if line.lstrip().startswith("#") and "vit (pyproject.toml" in line:
            names.add(name)
    return names


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_lock_satisfies_the_requirement(requirement: Requirement) -> None:
    versions = locked()[canonicalize_name(requirement.name)]
    assert versions, f"{requirement} is not in requirements.lock: run `make lock`"
    assert all(requirement.specifier.contains(version) for version in versions), f"{versions}: run `make lock`"


def imported(folder: str) -> set[str]:
    """Top-level names of other packages that a folder's files import, inside functions too."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    beside = {path.stem for path in (ROOT / "tests/bench").glob("*.py")}  # scripts there import each other
    return names - sys.stdlib_module_names - {"vit", "tests"} - beside


@pytest.mark.parametrize(("folder", "requirements"), [("vit", USED), ("tests", REQUIREMENTS)])
def test_what_is_imported_is_asked_for(folder: str, requirements: list[Requirement]) -> None:
    asked, providers = {canonicalize_name(requirement.name) for requirement in requirements}, packages_distributions()
    names = imported(folder)
    assert {"torch", "yaml"} <= names
    missing = [name for name in names if asked.isdisjoint(map(canonicalize_name, providers.get(name, [])))]
    assert not missing, f"{folder}/ imports what only other packages ask for: {sorted(missing)}"


def test_lock_was_made_for_these_requirements() -> None:
    assert asked_for() == {canonicalize_name(requirement.name) for requirement in REQUIREMENTS}, "run `make lock`"


def test_lock_names_hashes_and_no_place() -> None:
    lines = LOCK.splitlines()
    entries = [number for number, line in enumerate(lines) if ENTRY.match(line)]
    assert len(entries) > 100
    for number in entries:
        assert lines[number].endswith("\\")
        assert re.match(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$", lines[number + 1]), lines[number]
    assert all(ENTRY.match(line) or line.startswith("    ") for line in lines)
    assert not re.search(r"://|--index|--find-links|--trusted-host|\s@\s|/home/|/root/", LOCK)


@pytest.mark.parametrize(
    ("name", "works", "does_not"),
    [
        ("albumentations", "2.0.8", ["2.0.7", "2.0.9", "2.1.0"]),
        ("lightning", "2.6.6", ["2.5.6", "2.6.0", "2.6.5"]),  # a malicious release and a code-execution CVE among them
        ("torch", "2.11.0", ["2.10.0"]),
        ("pillow", "12.3.0", ["12.2.0", "11.3.0"]),
    ],
)
def test_pins(name: str, works: str, does_not: list[str]) -> None:
    (requirement,) = [requirement for requirement in REQUIREMENTS if requirement.name == name]
    assert requirement.specifier.contains(works)
    assert not any(requirement.specifier.contains(version) for version in does_not)


def test_no_package_of_another_licence_slips_in() -> None:
    assert {"albumentationsx", "ultralytics", "lxt"}.isdisjoint(locked())  # AGPL, AGPL, personal use


def test_make_lock_locks_every_group_for_every_platform() -> None:
    (line,) = re.findall(r"^LOCK := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in (
        "pip compile pyproject.toml",
        "--all-extras",
        "--universal",
        "--generate-hashes",
        "--no-emit-index-url",
    ):
        assert words in line
    for group in PROJECT["dependency-groups"]:
        assert f"--group {group}" in line


def test_python_and_licence() -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert PROJECT["project"]["license"] == "MIT"
