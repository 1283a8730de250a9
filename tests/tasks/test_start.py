"""Weights from everywhere, into nets of other sizes and classes; all that does not fit is told."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch.testing import assert_close

from tests.helpers import redrawn
from vit import bundle
from vit.data.images import Preprocessing
from vit.layers import Block, Head, MapPool, MeanPool, Mlp, Rotary2d, SelfAttention
from vit.models import CNN, MAE, Backbone, ViT, to_timm
from vit.tasks.classify import Classifier
from vit.tasks.ema import EMA
from vit.tasks.start import begin, open_source, origin, other_scale, weights_of

CLASSES = [str(digit) for digit in range(10)]
GREY = Preprocessing((8, 8), 1, (0.5,), (0.25,))


def part(num_heads: int = 2, **options) -> partial:
    block = partial(Block, mixer=partial(SelfAttention, num_heads=num_heads))
    return partial(Backbone, **{"patch_size": 2, "embed_dim": 16, "depth": 2, "block": block, **options})


def vit(img_size=8, classes: int = 10, head=Head, **options) -> ViT:
    return ViT(img_size, 1, classes, part(**options), head)


def saved(folder: Path, net: torch.nn.Module | None = None, classes=CLASSES) -> str:
    net = redrawn(vit()).float() if net is None else net
    bundle.save(folder, net, classes=classes, preprocessing=GREY)
    return str(folder)


def test_a_bundle_of_the_same_classes_gives_all_its_weights(tmp_path) -> None:
    source, net = saved(tmp_path), vit()
    account = begin(net, source, CLASSES)
    assert str(account) == f"{source}: loaded 32 weights"
    assert_close(dict(net.state_dict()), dict(bundle.load(tmp_path, "cpu").net.state_dict()), rtol=0, atol=0)
    for file in ("model.json", "model.safetensors"):
        assert begin(vit(), str(tmp_path / file), CLASSES).loaded == account.loaded


def test_a_head_of_other_classes_starts_new_though_it_fits(tmp_path) -> None:
    source, net = saved(tmp_path, classes=[f"cloth {digit}" for digit in CLASSES]), vit()
    before = net.head.fc.weight.clone()
    account = begin(net, source, CLASSES)
    assert account.new == ("head",) and account.skipped == ("head.fc.weight", "head.fc.bias")
    assert torch.equal(net.head.fc.weight, before)
    assert begin(vit(classes=7), source, CLASSES[:7]).new == ("head",)
    pooled = partial(Head, pool=partial(MapPool, num_heads=2))
    attentive = saved(tmp_path / "map", vit(head=pooled), classes=list("abcdefghij"))
    assert begin(vit(head=pooled), attentive, CLASSES).new == ("head.fc",)


def test_positions_of_an_oblong_grid_and_patches_come_from_its_spec(tmp_path) -> None:
    source = saved(tmp_path, redrawn(vit((4, 16))).float())  # 2x8 patches: 16, as 4x4 has
    account = begin(vit((12, 8), patch_size=4), source, CLASSES)
    assert set(account.resized.values()) == {"positions 2x8 to 3x2", "patches 2x2 to 4x4"}


def test_a_cnn_starts_from_a_cnn(tmp_path) -> None:
    source = saved(tmp_path, CNN(8, 1, 10, width=0.25))
    net = CNN(8, 3, 4, width=0.25)
    account = begin(net, source, CLASSES[:4])
    assert account.new == ("net.fc",) and account.resized == {"net.conv1.weight": "channels 1 to 3"}
    with pytest.raises(ValueError, match=r"another architecture than the net: width \(0.25, here 0.5\)"):
        begin(CNN(8, 1, 10, width=0.5), source, CLASSES)


def test_a_run_that_was_cut_short_gives_its_averaged_weights(trainer, tmp_path, tiny_net, digits) -> None:
    ema = EMA(0.9)
    from vit.tasks.checkpoint import BEST, Checkpoints, load_checkpoint

    trainer(callbacks=[ema, Checkpoints()], max_epochs=1).fit(Classifier(tiny_net), digits)
    best = tmp_path / "checkpoints" / BEST
    averaged = weights_of(load_checkpoint(best))
    for source in (str(tmp_path), str(best)):
        found = open_source(source)
        assert found.classes == tuple(CLASSES) and found.grid == (2, 2)
        assert_close(dict(found.weights), averaged, rtol=0, atol=0)
    assert any(not torch.equal(averaged[key], value) for key, value in tiny_net.state_dict().items())


def test_a_file_may_hold_our_names_or_timms(tmp_path) -> None:
    donor = redrawn(vit()).float()
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    safetensors.torch.save_file(dict(donor.state_dict()), ours)
    safetensors.torch.save_file(to_timm(donor), theirs)
    for file in (ours, theirs):
        net = vit()
        begin(net, str(file), CLASSES)
        assert_close(dict(net.state_dict()), dict(donor.state_dict()))
        assert origin(str(file)) is None
    with pytest.raises(ValueError, match="expected a plain ViT to fill, got parts with no seat there"):
        begin(
            vit(block=partial(Block, mixer=partial(SelfAttention, num_heads=2, rotary=Rotary2d))), str(theirs), CLASSES
        )


BAD = {
    "https://example.org/model.safetensors": "expected a local path, got the URL",
    "nothing/here": "no weights in 'nothing/here': expected a run folder, a bundle folder, a .ckpt file of a run",
    "gone.ckpt": "no checkpoint at gone.ckpt",
    "gone.safetensors": "no weights in 'gone.safetensors'",
    "model.pth": "no weights in 'model.pth'",
    "timm:": "weights come from timm:NAME",
}


@pytest.mark.parametrize("source", BAD)
def test_what_cannot_be_read_is_told_in_one_line(source: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.pth").write_bytes(b"cos\nsystem\n(S'touch harmed'\ntR.")
    with pytest.raises(ValueError) as raised:
        begin(vit(), source, CLASSES)
    assert str(raised.value).startswith(BAD[source]) and "\n" not in str(raised.value)
    assert not Path("harmed").exists()


def test_files_that_are_something_else_are_told(tmp_path) -> None:
    broken, pickled = tmp_path / "a.safetensors", tmp_path / "b.ckpt"
    broken.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"a.safetensors is not a safetensors file"):
        open_source(str(broken))
    pickled.write_bytes(b"cos\nsystem\n(S'touch harmed'\ntR.")
    with pytest.raises(ValueError, match=r"b.ckpt is damaged or not a checkpoint of plain tensors"):
        open_source(str(pickled))
    torch.save({"state_dict": {}}, pickled)
    with pytest.raises(ValueError, match="was not written by vit"):
        open_source(str(pickled))


OTHER = {
    "heads": ({"num_heads": 4}, "backbone.block.mixer.num_heads (2, here 4)"),
    "depth": ({"depth": 3}, "backbone.depth (2, here 3)"),
    "mlp": (
        {"block": partial(Block, mixer=partial(SelfAttention, num_heads=2), mlp=partial(Mlp, mlp_ratio=2.0))},
        "backbone.block.mlp.mlp_ratio (4.0, here 2.0)",
    ),
}


@pytest.mark.parametrize("name", OTHER)
def test_another_architecture_is_an_error_that_names_the_option(name: str, tmp_path) -> None:
    options, message = OTHER[name]
    source, net = saved(tmp_path), vit(**options)
    before = net.backbone.norm.weight
    with pytest.raises(ValueError) as raised:
        begin(net, source, CLASSES)
    assert f"{source} is another architecture than the net: {message}; leave the model out" in str(raised.value)
    assert net.backbone.norm.weight is before


def test_what_is_named_may_differ_or_start_new(tmp_path) -> None:
    source = saved(tmp_path)
    account = begin(vit(num_heads=4), source, CLASSES, ["backbone.block.mixer"])
    assert len(account.loaded) == 32
    with pytest.raises(ValueError, match=r"norm1.weight \(missing\)"):
        begin(vit(depth=3), source, CLASSES, ["backbone.depth"])
    new = "backbone.encoder.blocks.2"
    assert begin(vit(depth=3), source, CLASSES, ["backbone.depth", new]).new == (new,)


def test_training_options_may_differ(tmp_path) -> None:
    assert begin(vit(drop_path=0.3, patch_drop=0.2), saved(tmp_path), CLASSES).new == ()


def pretrained() -> MAE:
    torch.manual_seed(11)
    return redrawn(MAE(8, 1, part())).float()


def test_what_was_pretrained_gives_its_backbone_and_the_rest_is_skipped(tmp_path) -> None:
    net, mae = vit(head=partial(Head, pool=MeanPool)), pretrained()
    account = begin(net, saved(tmp_path, mae), CLASSES)
    assert account.new == ("head",) and {name.partition(".")[0] for name in account.skipped} >= {"decoder"}
    assert_close(dict(net.backbone.state_dict()), dict(mae.backbone.state_dict()), rtol=0, atol=0)


def test_pictures_of_another_scale_are_told(tmp_path, trainer, digits, capsys) -> None:
    name = saved(tmp_path, vit())
    own = bundle.load(name).preprocessing
    assert other_scale(name, own) is None
    assert other_scale(name, replace(own, std=tuple(2 * one for one in own.std))).startswith("  pictures have mean ")
    trainer(callbacks=[], enable_checkpointing=False, max_epochs=1, limit_train_batches=1).fit(
        Classifier(vit(), init_from=name), digits
    )
    assert f"the weights know {own.mean} and {own.std}" in capsys.readouterr().out
    assert other_scale("timm:vit_tiny_patch16_224", replace(own, channels=1, mean=(0.5,), std=(0.5,))) is None


def test_finetuning_from_a_bundle_equals_finetuning_from_the_live_object(tmp_path, trainer, digits) -> None:
    """Bit for bit: before the first step, and after some."""

    def fit(init_from: str | None) -> list[dict]:
        torch.manual_seed(23)
        net = vit(head=partial(Head, pool=MeanPool))
        if init_from is None:
            net.backbone = pretrained().backbone.train()
        task, seen = Classifier(net, init_from=init_from), []
        options = {"callbacks": [EMA(0.9)], "enable_checkpointing": False, "max_epochs": 1}
        fitted = trainer(**options)
        task.on_train_start = lambda: seen.append({k: v.clone() for k, v in net.state_dict().items()})
        fitted.fit(task, digits)
        return [*seen, net.state_dict()]

    live, loaded = fit(None), fit(saved(tmp_path, pretrained()))
    for one, other in zip(live, loaded, strict=True):
        assert_close(dict(one), dict(other), rtol=0, atol=0)
    assert not torch.equal(live[0]["backbone.norm.weight"], live[1]["backbone.norm.weight"])


def test_a_resumed_run_does_not_start_again(tmp_path, trainer, digits, tiny_net, monkeypatch) -> None:
    """Its source may be gone by then."""
    from vit.tasks.checkpoint import Checkpoints

    bundle.save(tmp_path / "source", tiny_net, classes=CLASSES, preprocessing=GREY)
    task = partial(Classifier, tiny_net, init_from=str(tmp_path / "source"))
    trainer(callbacks=[Checkpoints()], max_epochs=1).fit(task(), digits)
    (tmp_path / "source" / "model.json").unlink()
    last = tmp_path / "checkpoints" / "last.ckpt"
    resumed = trainer(callbacks=[Checkpoints()], max_epochs=2)
    resumed.ckpt_path = last
    resumed.fit(task(), digits)
    with pytest.raises(ValueError, match="no weights in"):
        trainer(callbacks=[], enable_checkpointing=False).fit(task(), digits)
