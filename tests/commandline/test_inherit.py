"""`vit fit -c finetune --model.init_from MODEL` builds the net of MODEL."""

import json
from functools import partial
from pathlib import Path

import pytest

from vit import bundle
from vit.commandline.arguments import with_configs
from vit.commandline.inherit import inherited
from vit.commandline.options import VitCLI
from vit.commandline.overlays import resolve
from vit.commandline.quiet import quiet
from vit.data.images import Preprocessing
from vit.layers import (
    Block,
    ClassToken,
    ConformerBlock,
    ConvStem,
    Head,
    MapPool,
    MeanPool,
    Rotary2d,
    SelfAttention,
    SinCos2d,
)
from vit.models import CNN, MAE, Backbone, ViT
from vit.spec import options, spec

PREPROCESSING = Preprocessing((28, 28), 1, (0.5,), (0.25,))
MIXER = partial(SelfAttention, num_heads=2, rotary=Rotary2d)
PART = partial(
    Backbone,
    embed_dim=24,
    depth=3,
    prefix=(),
    patch_embed=ConvStem,
    pos_embed=SinCos2d,
    block=partial(Block, mixer=MIXER),
    early=[(partial(ConformerBlock, mixer=MIXER), 1)],
)
NETS = {
    "hybrid": partial(ViT, 28, 1, 3, PART, partial(Head, pool=partial(MapPool, num_heads=2))),
    "plain": partial(ViT, 28, 1, 3, partial(Backbone, embed_dim=24, depth=1)),
    "cnn": partial(CNN, 28, 1, 3, width=0.25, drop=0.1),
}


def saved(folder: Path, net) -> str:
    bundle.save(folder, net, classes=list("abc"), preprocessing=PREPROCESSING)
    return str(folder)


def net_of(*args: str):
    """The net that a fit on digits (8x8) with these arguments trains."""
    expanded = with_configs(["-c", "finetune", *args])[0]
    with quiet():
        cli = VitCLI("fit", [f"--config={resolve('base')}", *inherited(expanded), *expanded])
        return cli.parser.instantiate(cli.config).model.net


def compared(net) -> dict:
    """All that a net is but for what the data decides."""
    by_data = ("img_size", "in_chans", "num_classes")
    return {name: value for name, value in options(spec(net)).items() if not name.startswith(by_data)}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("form", ["--model.init_from={}", "--model.init_args.init_from={}"])
def test_the_net_is_that_of_the_weights(name: str, form: str, tmp_path: Path) -> None:
    net = NETS[name]()
    again = net_of(form.format(saved(tmp_path, net)), "--data.img_size=32")
    wanted = compared(net)
    if name != "cnn":  # what the picture size had chosen stays
        wanted |= {"backbone.patch_size.0": 4, "backbone.patch_size.1": 4}
        wanted.pop("backbone.patch_size")
        assert again.backbone.grid[:2] == (8, 8)
    assert compared(again) == wanted
    assert again.num_classes == 10


def test_what_was_pretrained_gets_a_head_on_the_mean_of_patches(tmp_path: Path) -> None:
    net = net_of(
        "--model.init_from", saved(tmp_path, MAE(28, 1, partial(Backbone, embed_dim=24))), "--data.img_size=28"
    )
    assert isinstance(net, ViT) and isinstance(net.head.pool, MeanPool) and net.backbone.embed_dim == 24
    assert len(net.backbone.encoder.blocks) == 12


def data_of(*args: str) -> Preprocessing:
    """How a fit on grey digits (8x8) with these arguments prepares pictures."""
    expanded = with_configs(["-c", "finetune", *args])[0]
    with quiet():
        cli = VitCLI("fit", [f"--config={resolve('base')}", *inherited(expanded), *expanded])
        return cli.parser.instantiate(cli.config).data.preprocessing


def test_pictures_are_prepared_as_the_weights_know_them(tmp_path: Path) -> None:
    source = f"--model.init_from={saved(tmp_path, NETS['plain']())}"
    assert data_of(source) == PREPROCESSING
    assert data_of(source, "--data.img_size=[12,20]", "--data.std=[0.5]") == Preprocessing((12, 20), 1, (0.5,), (0.5,))
    assert data_of(source, "--data.channels=3") == Preprocessing((28, 28), 3, (0.5,) * 3, (0.25,) * 3)
    assert data_of("-c", "model/vit_pico", source).img_size == (8, 8)
    timms = data_of("--model.init_from=timm:vit_tiny_patch16_224", "--data.channels=3")
    assert timms == Preprocessing((224, 224), 3, (0.5,) * 3, (0.5,) * 3)


def test_parts_may_be_changed_and_a_named_net_wins(tmp_path: Path) -> None:
    source = f"--model.init_from={saved(tmp_path, NETS['plain']())}"
    changed = net_of(source, "--model.net.backbone.drop_path=0.2", "--model.net.backbone.patch_size=2")
    assert changed.backbone.encoder.blocks[0].residual1.drop_path.rate == 0.0  # the first of a depth of 1
    assert changed.backbone.patch_size == (2, 2) and changed.backbone.embed_dim == 24
    pooled = net_of("-c", "pool/map", source, "--data.img_size=28")
    assert isinstance(pooled.head.pool, MapPool) and pooled.backbone.embed_dim == 24
    named = net_of("-c", "model/vit_pico", source)
    assert named.backbone.embed_dim == 48 and len(named.backbone.encoder.blocks) == 4
    assert isinstance(net_of(source, "--model.net=vit.models.CNN"), CNN)


def test_a_config_may_name_the_source(tmp_path: Path) -> None:
    source, config = saved(tmp_path / "run", NETS["plain"]()), tmp_path / "mine.yaml"
    config.write_text(json.dumps({"model": {"init_args": {"init_from": source}}}))
    assert net_of("-c", str(config), "--data.img_size=28").backbone.embed_dim == 24


def test_timms_names_give_timms_nets() -> None:
    net = net_of("--model.init_from=timm:vit_tiny_patch16_224", "--data.img_size=[32,48]", "--data.channels=3")
    assert (net.backbone.embed_dim, len(net.backbone.encoder.blocks), net.backbone.grid[:2]) == (192, 12, (2, 3))
    assert isinstance(net.head.pool, ClassToken)


def test_without_a_source_nothing_is_added(tmp_path: Path) -> None:
    assert inherited(["--model.lr=1"]) == []
    assert inherited(["--model.init_from=null"]) == []
    with pytest.raises(ValueError, match="no weights in 'nowhere'"):
        inherited(["--model.init_from", "nowhere"])
