"""Shapes checked, one thread per process (the suite runs under xdist) and one seed per test."""

import shutil
from pathlib import Path

import jaxtyping
import pytest
import torch
from beartype import BeartypeConf, beartype

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int may stand for a float
jaxtyping.install_import_hook(
    ["vit.checks", "vit.tokens", "vit.attention", "vit.layers", "vit.models"], "tests.conftest.typechecker"
)

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be written to."""
    from tests.helpers import TINY  # only now: what it imports has to be type-checked
    from vit import run

    folder = tmp_path_factory.mktemp("runs") / "finished"
    run.fit([*TINY, "--run", str(folder)])
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to play with."""
    return shutil.copytree(finished, tmp_path / "run")
