"""Data sets and rows as a user writes them."""

import numpy as np
import pytest

from vit.experiments.starts import Place, Start, places, starts

METHODS = {"supervised": [], "mae": ["pretrain/mae"]}


def test_a_place_is_an_overlay_with_or_without_a_root_or_a_path(tmp_path):
    labels = np.arange(6)[:, None] % 2
    arrays = {f"{split}_{what}": value for split in ("train", "val", "test") for what, value in (
        ("images", np.zeros((6, 8, 8), np.uint8)), ("labels", labels))}  # fmt: skip
    np.savez(tmp_path / "blobs.npz", **arrays)
    found = places(["data/digits", "data/mnist=some/where", f"{tmp_path}/blobs.npz"])
    assert found == {
        "digits": Place("digits", ("--data.dataset=digits",)),
        "mnist": Place("mnist", ("--data.dataset=mnist", "--data.root=some/where")),
        "blobs": Place("blobs", (f"--data.root={tmp_path}/blobs.npz",)),
    }


def test_rows_name_a_method_and_where_it_is_pretrained():
    assert starts(["scratch", "mae", "supervised@*", "mae@b"], METHODS, ["a", "b"]) == [
        Start("scratch", None, None),
        Start("mae", "mae", None),
        Start("supervised@a", "supervised", "a"),
        Start("supervised@b", "supervised", "b"),
        Start("mae@b", "mae", "b"),
    ]


@pytest.mark.parametrize(
    "rows, said",
    [
        (["mea"], "unknown row 'mea'.*did you mean 'mae'"),
        (["mae@c"], "row 'mae@c': expected one of the --sources a, b"),
        ([], "at least one row and each once, got none"),
        (["mae@*", "mae@a"], "each once"),
    ],
)
def test_rows_that_cannot_be_are_refused(rows: list[str], said: str):
    with pytest.raises(ValueError, match=said):
        starts(rows, METHODS, ["a", "b"])


def test_two_places_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two data sets are called 'mnist'"):
        places(["data/mnist=here", "data/mnist=there"])
