"""Arms are overlays by name."""

import pytest

from vit.commandline.overlays import packaged_names
from vit.experiments.axes import FOLDERS, overlays, select


def test_every_overlay_of_an_axis_takes_part_without_a_list():
    for axis, folders in FOLDERS.items():
        assert overlays(axis) == [name for name in packaged_names() if name.startswith(tuple(f"{f}/" for f in folders))]
    assert {"attention/softmax"} <= set(overlays("mixer")) and {"pool/map", "pool/mean"} <= set(overlays("readout"))


def test_the_reference_comes_first_whether_asked_for_or_not():
    assert select("readout", ["pool/map"], "pool/mean") == ["pool/mean", "pool/map"]
    assert select("readout", ["pool/map", "pool/mean"], "pool/mean") == ["pool/mean", "pool/map"]
    assert select("readout", None, "pool/mean")[0] == "pool/mean"
    assert sorted(select("readout", None, "pool/mean")) == overlays("readout")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["pool/maps"], "unknown arm 'pool/maps' of --vary readout: expected some of pool/.*did you mean 'pool/map'"),
        (["attention/softmax"], "unknown arm 'attention/softmax' of --vary readout"),
        (["pool/map", "pool/map"], "each once, got pool/map, pool/map"),
        ([], "at least one arm"),
    ],
)
def test_other_names_are_refused(asked: list[str], words: str):
    with pytest.raises(ValueError, match=words):
        select("readout", asked, "pool/mean")
