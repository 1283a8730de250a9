"""Shapes checked, one thread per process (the suite runs under xdist) and one seed per test."""

import jaxtyping
import pytest
import torch
from beartype import BeartypeConf, beartype

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int may stand for a float
jaxtyping.install_import_hook(["vit.tokens", "vit.attention", "vit.layers", "vit.models"], "tests.conftest.typechecker")

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
