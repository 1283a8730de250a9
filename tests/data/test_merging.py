"""Coarser labels of the same pictures, in the same splits."""

from pathlib import Path

import numpy as np
import pytest

from vit.data.catalog import describe, manifest
from vit.data.merging import is_coarser, merged
from vit.data.module import Images

OWN = ("ant", "bee", "cat", "dog", "eel")
PETS = {"pet": ["dog", "cat"], "insect": ["bee", "ant"], "fish": ["eel"]}
SHAPES = {"round": list("0689"), "straight": list("147"), "mixed": list("235")}


def test_coarse_classes_come_in_the_order_in_which_the_own_ones_reach_them():
    classes, coarse = merged(OWN, PETS)
    assert classes == ("insect", "pet", "fish") and coarse.tolist() == [0, 0, 1, 1, 2]
    again = dict(reversed([(name, list(reversed(own))) for name, own in PETS.items()]))
    assert merged(OWN, again)[0] == classes


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        ({"pet": ["cat", "dog"], "insect": ["ant", "bee"]}, "exactly once, got missing: eel$"),
        (PETS | {"bird": ["owl"]}, "got unknown: owl$"),
        (PETS | {"black": ["ant"]}, "got twice: ant$"),
        (PETS | {"bird": []}, "got without a class: bird$"),
        ({"pet": ["dog", "cow"], "wild": ["dog"]}, "got missing: ant, bee, cat, eel; unknown: cow; twice: dog$"),
        ({"animal": list(OWN)}, "at least two coarse classes, got animal$"),
    ],
)
def test_every_class_is_named_exactly_once(merge: dict[str, list[str]], message: str):
    with pytest.raises(ValueError, match=message):
        merged(OWN, merge)


def test_labels_are_coarser_where_they_follow_from_the_others_and_not_back():
    crossing = {"a": ["ant", "cat"], "b": ["bee", "dog", "eel"]}
    animals = {"land": ["ant", "bee", "cat", "dog"], "water": ["eel"]}
    renamed = {name.upper(): own for name, own in PETS.items()}
    assert is_coarser(OWN, PETS, None) and is_coarser(OWN, animals, PETS)
    for first, second in ((None, PETS), (None, None), (PETS, renamed), (PETS, animals), (crossing, PETS)):
        assert not is_coarser(OWN, first, second)
    assert not is_coarser(OWN, {name: [name] for name in OWN}, None)


@pytest.mark.parametrize("options", [{}, {"train_size": 40, "seed": 3}])
def test_the_same_pictures_are_trained_on_held_out_and_tested(options: dict):
    fine, coarse = Images("digits", **options), Images("digits", merge_classes=SHAPES, **options)
    assert coarse.classes == ("round", "straight", "mixed")
    into = np.array([0, 1, 2, 2, 1, 2, 0, 1, 0, 0])
    np.testing.assert_array_equal(fine.train_samples, coarse.train_samples)
    np.testing.assert_array_equal(fine.nested_order, coarse.nested_order)
    parts = ((*data.splits.fit, data.splits.test) for data in (coarse, fine))
    for ours, theirs in zip(*parts, strict=True):
        np.testing.assert_array_equal(ours.samples, theirs.samples)
        np.testing.assert_array_equal(ours.source.pictures, theirs.source.pictures)  # pyright: ignore
        np.testing.assert_array_equal(ours.source.labels, into[theirs.source.labels])
    assert coarse.class_counts.tolist() == [int(fine.class_counts[into == label].sum()) for label in range(3)]


def test_a_validation_split_of_its_own_is_merged_too(tmp_path: Path):
    arrays = {f"{split}_images": np.zeros((8, 3, 3), np.uint8) for split in ("train", "val", "test")}
    arrays |= {f"{split}_labels": np.arange(8) % 4 for split in ("train", "val", "test")}
    np.savez(tmp_path / "four.npz", **arrays)
    data = Images(root=str(tmp_path / "four.npz"), merge_classes={"even": ["0", "2"], "odd": ["1", "3"]})
    assert data.splits.fit[1].source.labels.tolist() == [0, 1] * 4 == data.splits.test.source.labels.tolist()


def test_merged_data_have_a_name_and_a_manifest_of_their_own():
    own = manifest("digits", None)
    assert own == Images("digits").manifest_hash
    again = dict(reversed(SHAPES.items()))
    other = SHAPES | {"round": list("068"), "mixed": list("2359")}
    hashes = [Images("digits", merge_classes=merge).manifest_hash for merge in (SHAPES, again, other)]
    assert hashes[0] == hashes[1] and len({own, *hashes}) == 3
    renamed = {name.upper(): some for name, some in SHAPES.items()}
    assert manifest("digits", None, renamed) not in (own, *hashes)
    assert describe("digits", None, merge_classes=SHAPES).name == "digits-coarse"


def test_masks_hold_the_coarse_class():
    first, *rest = describe("scenes_texture", None).classes
    merge = {"first": [first], "rest": rest}
    loader = Images("scenes_texture", masks=True, merge_classes=merge, batch_size=23, cache_gb=0).val_dataloader()
    batch = next(iter(loader))
    assert set(batch.labels.tolist()) == {0, 1}
    assert [mask.unique().tolist() for mask in batch.masks] == [[0, 1 + label] for label in batch.labels.tolist()]
