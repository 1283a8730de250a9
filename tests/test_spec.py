import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.models.nets import NETS, everything
from vit.layers import Block, LayerNorm
from vit.models import CNN, Backbone, ViT, plain_vit
from vit.spec import build, keeps_spec, options, spec


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_a_net_comes_back_from_its_spec_as_json(make: Callable[[], nn.Module]) -> None:
    net = make().eval()
    tree = spec(net)
    again = build(json.loads(json.dumps(tree))).eval()
    again.load_state_dict(net.state_dict())
    images = torch.randn(2, 5, 12, 20)
    assert_close(again(images), net(images), rtol=0, atol=0)
    assert spec(again) == tree
    assert str(again) == str(net)  # dropout rates and the like, which no weight shows


def test_a_spec_says_what_was_asked_and_what_was_left() -> None:
    assert spec(CNN(32, 3, num_classes=10)) == {
        "class": "vit.models.cnn.CNN",
        "args": {
            "img_size": 32,
            "in_chans": 3,
            "num_classes": 10,
            "name": "resnet18",
            "drop": 0.0,
            "drop_path": 0.0,
            "width": 1.0,
        },
    }
    tree = spec(plain_vit("nano", (32, 48), 3, 10))
    assert tree["args"]["img_size"] == [32, 48]
    assert tree["args"]["head"] == {"factory": "vit.layers.heads.Head", "args": {}}
    assert tree["args"]["backbone"]["args"]["block"]["args"]["mixer"] == {
        "factory": "vit.layers.attend.SelfAttention",
        "args": {"num_heads": 3},
    }


def test_options_survive_at_every_depth() -> None:
    net = build(spec(everything()))
    first, second, _ = net.backbone.encoder.blocks
    assert type(first).__name__ == "PostNormBlock"
    assert second.mixer.mechanism.attn_drop == 0.1
    assert second.mixer.rotary.temperature == 50.0
    assert second.residual1.drop_path.rate == pytest.approx(0.1)
    assert net.backbone.patch_drop.rate == 0.3
    assert net.backbone.norm.eps == 1e-5
    assert net.backbone.grid.prefix == ("cls", "reg", "reg")


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that says so when it is imported."""
    (tmp_path / "outside_marker.py").write_text("import sys\nsys.outside_ran = True\nclass Net: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "outside_marker"
    assert "outside_marker" not in sys.modules
    assert "outside_ran" not in vars(sys)


@pytest.mark.parametrize("path", ["{}.Net", "vitality.{}.Net", "torch.nnx.{}", "torch.{}.Net", "os.system", "Net", ""])
@pytest.mark.parametrize("kind", ["class", "factory"])
def test_modules_outside_are_refused_before_they_are_imported(marker: str, path: str, kind: str) -> None:
    path = path.format(marker)
    with pytest.raises(
        ValueError, match=r"^spec names .*: expected a class of vit.attention or vit.layers or vit.models or torch.nn$"
    ):
        build({"class": path, "args": {}})
    nested = spec(everything())
    nested["args"]["backbone"]["args"]["block"]["args"]["mlp"] = {kind: path, "args": {}}
    with pytest.raises(ValueError, match=r"expected a class of vit.attention or"):
        build(nested)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"class": "vit.models.vit.Vit", "args": {}}, "vit.models.vit.Vit, which this version of vit does not have"),
        ({"class": "vit.layers.nowhere.Net", "args": {}}, "nowhere.Net, which this version of vit does not have"),
        ({"class": "vit.models.vit.cast", "args": {}}, "vit.models.vit.cast: expected a class, got function"),
        ({"class": "vit.__main__.Foo", "args": {}}, "expected a class of vit.attention"),  # importing it would run it
        ({"class": "vit.tasks.metrics.MetricsCSV", "args": {}}, "expected a class of vit.attention"),
        ({"class": "torch.nn.functional.relu", "args": {}}, "expected a class"),
        ({"class": "vit.models.mae.partial", "args": {}}, "partial: expected a class of vit.attention or"),
        ({"class": ["vit.models.vit.ViT"], "args": {}}, "expected a class of vit.attention or vit.layers or"),
        ({"factory": "vit.models.vit.ViT", "args": {}}, "a tree with a class, got the keys factory, args"),
        ({}, "a tree with a class, got the keys none"),
        (
            {"class": "vit.models.cnn.CNN", "args": {"img_size": 32, "in_chans": 3, "num_classes": 2, "depth": 3}},
            "CNN cannot be built from its spec: .*depth",
        ),
    ],
)
def test_bad_specs_are_told(tree: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(tree)


@pytest.mark.parametrize(
    "block",
    [
        lambda dim, grid, drop_path: Block(dim, grid, drop_path),
        partial(Block, norm=lambda dim: LayerNorm(dim)),
        partial(Block, mlp=partial(lambda dim: nn.Identity())),
    ],
)
def test_functions_are_refused(block: Callable) -> None:
    net = ViT(8, 3, 2, partial(Backbone, patch_size=4, embed_dim=24, depth=1, block=block))
    with pytest.raises(ValueError, match="cannot be written to a spec: expected plain data, a class or a"):
        spec(net)


def test_nets_that_keep_no_arguments_are_told() -> None:
    with pytest.raises(ValueError, match=r"^Linear keeps no spec: expected a class decorated with @keeps_spec$"):
        spec(nn.Linear(2, 2))


def test_keeping_a_spec_changes_neither_signature_nor_state() -> None:
    class Net(nn.Module):
        def __init__(self, width: int, depth: int = 2) -> None:
            super().__init__()
            self.layer = nn.Linear(width, depth)

    kept = keeps_spec(Net)
    assert kept is Net
    assert kept.__init__.__wrapped__.__annotations__ == kept.__init__.__annotations__
    net = kept(3)
    assert list(net.state_dict()) == ["layer.weight", "layer.bias"]
    assert spec(net)["args"] == {"width": 3, "depth": 2}


def test_options_are_the_same_wherever_a_net_was_written() -> None:
    given = options(spec(ViT(32, 3, 5, partial(Backbone, depth=2, block=partial(Block, layer_scale=None)))))
    bare = options(spec(ViT(32, 3, 5, partial(Backbone, depth=2))))
    assert given == bare  # defaults are filled in
    assert bare["backbone.block.mixer.num_heads"] == 3 and bare["backbone.block"] == "vit.layers.block.Block"
    assert bare["backbone.prefix.0"] == "cls" and "backbone.prefix" not in bare
    other = options(spec(ViT(32, 3, 5, partial(Backbone, depth=2, early=[(Block, 1)]))))
    differing = {name for name in other if other.get(name) != bare.get(name)}
    assert {"backbone.early.0.0", "backbone.early.0.0.mlp.mlp_ratio", "backbone.early.0.1"} <= differing
