import json
import os
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import vit
from vit import bundle
from vit.data.images import Preprocessing
from vit.files import part_of
from vit.layers import Block, SelfAttention
from vit.models.backbone import Backbone
from vit.models.vit import ViT

CLASSES = ("cat", "dog", "鳥")
PREPROCESSING = Preprocessing((8, 12), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def net(dim: int = 16) -> ViT:
    block = partial(Block, mixer=partial(SelfAttention, num_heads=2))
    return ViT(
        (8, 12), 3, 3, backbone=partial(Backbone, patch_size=4, embed_dim=dim, depth=2, block=block, drop_path=0.5)
    )


@pytest.fixture
def saved(tmp_path):
    model = net()
    bundle.save(tmp_path, model, classes=CLASSES, preprocessing=PREPROCESSING, metrics={"a": 1}, licence="CC0-1.0")
    return tmp_path, model


def pictures(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 9, 13, 3), dtype=np.uint8))


def test_a_bundle_comes_back_with_equal_logits_and_all_it_knows(saved):
    folder, model = saved
    loaded = vit.load(folder, device="cpu")
    images = torch.randn(5, 3, 8, 12)
    with torch.inference_mode():
        assert_close(loaded.net(images), model.eval()(images), rtol=0, atol=0)
    assert not loaded.net.training
    assert (loaded.classes, loaded.preprocessing) == (CLASSES, PREPROCESSING)
    assert loaded.meta["licence"] == "CC0-1.0" and loaded.meta["versions"]["vit"] == vit.__version__
    assert sorted(os.listdir(folder)) == ["model.json", "model.safetensors"]


def test_predictions_are_ranked_and_the_same_for_every_form_of_a_picture(saved, tmp_path):
    model = vit.load(saved[0], device="cpu")
    array = pictures(1)[0]
    path = tmp_path / "picture.png"
    Image.fromarray(array).save(path)
    (expected,) = model.predict(array)
    for form in (path, str(path), Image.fromarray(array), [array], (path,)):
        assert model.predict(form) == [expected]
    assert set(expected.probabilities) == set(CLASSES)
    assert sum(expected.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert list(expected.probabilities.values()) == sorted(expected.probabilities.values(), reverse=True)
    assert expected.label == next(iter(expected.probabilities))
    assert expected.probability == expected.probabilities[expected.label]


def test_predictions_are_in_order_repeatable_and_free_of_the_batch(saved):
    model, given = vit.load(saved[0], device="cpu"), pictures(7)
    together = model.predict(given)
    assert model.predict(given) == together
    for one, prediction in zip(model.predict(given, batch_size=3), together, strict=True):
        assert one.label == prediction.label
        assert one.probabilities == pytest.approx(prediction.probabilities, abs=1e-6)
    assert model.predict([]) == []


def test_top_k_cuts_and_is_checked(saved):
    model = vit.load(saved[0], device="cpu")
    assert len(model.predict(pictures(1), top_k=2)[0].probabilities) == 2
    with pytest.raises(ValueError, match=r"top_k must be in 1\.\.3, got 4"):
        model.predict(pictures(1), top_k=4)


def test_embeddings_are_what_the_linear_map_sees_in_order(saved, tmp_path):
    model, given = vit.load(saved[0], device="cpu"), pictures(7)
    together = model.embed(given)
    assert together.shape == (7, 16)
    with torch.inference_mode():
        logits = model.net.head.fc(together)
    for row, prediction in zip(logits.softmax(dim=-1), model.predict(given), strict=True):
        assert [prediction.probabilities[name] for name in CLASSES] == pytest.approx(row.tolist(), abs=1e-6)
    assert_close(model.embed(given, batch_size=3), together)
    path = tmp_path / "picture.png"
    Image.fromarray(given[0]).save(path)
    for form in (path, str(path), Image.fromarray(given[0]), given[0], (path,)):
        assert_close(model.embed(form), together[:1])
    with pytest.raises(ValueError, match="nothing to embed: expected pictures, got none"):
        model.embed([])


def test_metrics_are_added_to_the_record_only(saved):
    folder, _ = saved
    before = (folder / "model.safetensors").read_bytes()
    bundle.add_metrics(folder, {"test": {"acc": 0.5}})
    assert vit.load(folder).meta["metrics"] == {"a": 1, "test": {"acc": 0.5}}
    assert (folder / "model.safetensors").read_bytes() == before


def test_either_file_names_the_bundle(saved):
    assert vit.load(saved[0] / "model.json").classes == vit.load(saved[0] / "model.safetensors").classes == CLASSES


def flip_a_weight(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def edit(folder, **changes):
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**record, **changes}))


def prepared(**changes):
    return lambda folder: edit(folder, preprocessing={**PREPROCESSING.to_dict(), **changes})


def other_architecture(folder):
    tree = json.loads((folder / "model.json").read_text())["spec"]
    tree["args"]["backbone"]["args"]["embed_dim"] = 24
    tree["args"]["backbone"]["args"]["depth"] = 1
    edit(folder, spec=tree)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_weight, r"model\.safetensors is damaged or not the file model\.json was written for"),
        (lambda folder: (folder / "model.json").unlink(), r"no model in .*: expected .* missing model\.json$"),
        (lambda folder: (folder / "model.json").write_text("{"), r"model\.json is not valid JSON"),
        (lambda folder: (folder / "model.json").write_text("[]"), r"is not a model's record: expected an object with"),
        (
            lambda folder: edit(folder, spec={"class": "os.system", "args": {}}),
            r"spec names os\.system: expected a class",
        ),
        (lambda folder: edit(folder, preprocessing={}), r"not a model's record: preprocessing lacks .* 'img_size'$"),
        (prepared(img_size=[7, 12]), r"the net takes no pictures of 7x12: "),
        (prepared(channels=1, mean=[0.5], std=[0.5]), r"the net is one of 3 channels, got 1$"),
        (lambda folder: edit(folder, classes=["cat", "dog"]), r"the net is one of 3 classes, got 2$"),
        (lambda folder: edit(folder, classes=[*CLASSES, "owl"]), r"the net is one of 3 classes, got 4$"),
        (lambda folder: edit(folder, spec=5), r"a spec is expected to be a tree with a class, got 5$"),
        (
            lambda folder: edit(folder, spec={"class": "vit.models.vit.ViT", "args": [1]}),
            r"args are .* by name, got \[1",
        ),
        (prepared(std=[0.5, 0.0, 0.5]), r"preprocessing misstates std, got \[0\.5, 0\.0, 0\.5\]$"),
        (prepared(mean=["a", "b", "c"]), r"preprocessing misstates mean, got "),
        (lambda folder: edit(folder, classes=["cat", "dog", "cat"]), r"expected each class once, got cat more often$"),
        (lambda folder: edit(folder, data=None), r"expected data by name, got None$"),
        (lambda folder: edit(folder, classes="cat"), r"expected a list of names as classes, got 'cat'$"),
        (other_architecture, r"do not fit their architecture: unexpected: .* and \d+ more; wrong shape: .*expected"),
    ],
)
def test_a_damaged_bundle_is_refused_in_one_line(saved, damage, message):
    damage(saved[0])
    with pytest.raises(ValueError, match=message) as caught:
        vit.load(saved[0])
    assert "\n" not in str(caught.value)


def test_nothing_is_fetched_or_guessed(tmp_path):
    with pytest.raises(ValueError, match="expected a local path, got the URL https://"):
        vit.load("https://example.org/model")
    with pytest.raises(ValueError, match=r"no model in .*nowhere.* missing model\.safetensors and model\.json"):
        vit.load(tmp_path / "nowhere")


@pytest.mark.parametrize("survivor", ["old", "new"])
def test_a_save_cut_short_leaves_the_old_bundle_or_the_new_one_whole(saved, monkeypatch, survivor):
    folder, old = saved
    new, replaced = net(), []

    def cut_short(source, target):
        if len(replaced) == {"old": 0, "new": 1}[survivor]:
            raise KeyboardInterrupt
        replaced.append(target)
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", cut_short)
    with pytest.raises(KeyboardInterrupt):
        bundle.save(folder, new, classes=CLASSES, preprocessing=PREPROCESSING)
    expected = {"old": old, "new": new}[survivor]
    assert_close(vit.load(folder, "cpu").net.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_a_failing_write_leaves_the_old_bundle_and_no_part(saved, monkeypatch):
    folder, old = saved
    monkeypatch.setattr(json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bundle.save(folder, net(), classes=CLASSES, preprocessing=PREPROCESSING)
    assert not part_of(folder / "model.json").exists()
    assert_close(vit.load(folder, "cpu").net.state_dict(), old.state_dict(), rtol=0, atol=0)


def test_tied_weights_survive(tmp_path):
    model = net()
    blocks = model.backbone.encoder.blocks
    blocks[1].mlp.fc1.weight = blocks[0].mlp.fc1.weight
    bundle.save(tmp_path, model, classes=CLASSES, preprocessing=PREPROCESSING)
    images = torch.randn(2, 3, 8, 12)
    with torch.inference_mode():
        assert_close(vit.load(tmp_path, "cpu").net(images), model.eval()(images), rtol=0, atol=0)


@pytest.mark.gpu
def test_auto_goes_to_cuda_and_agrees_with_the_cpu(saved):
    given = pictures(4)
    on_gpu, on_cpu = vit.load(saved[0]), vit.load(saved[0], device="cpu")
    assert next(on_gpu.net.parameters()).is_cuda
    for one, other in zip(on_gpu.predict(given), on_cpu.predict(given), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-3)


def test_both_files_may_be_read_by_whoever_may_read_the_other(saved):
    folder, _ = saved
    assert (folder / bundle.WEIGHTS).stat().st_mode == (folder / bundle.RECORD).stat().st_mode
