"""Configs one after another: what a user chose is trained, or the refusal says why not."""

import json
from pathlib import Path

import pytest

from vit.commandline.options import VitCLI
from vit.commandline.overlays import resolve
from vit.commandline.quiet import quiet
from vit.commandline.stack import refuse_disorder


def parse(*names: str, args: tuple[str, ...] = ()):
    """The model's configuration."""
    with quiet():
        return VitCLI("fit", [*(f"--config={resolve(name)}" for name in ("base", *names)), *args]).config.model


CNN = "the CNN of -c model/resnet_pico has none"
REFUSED = [
    (("model/resnet_pico", "pretrain/mae"), f"-c pretrain/mae takes the backbone of the net before it, and {CNN}"),
    (("model/vit_pico", "model/resnet_pico", "pretrain/simmim"), f"-c pretrain/simmim takes .*, and {CNN}"),
    (("model/resnet_pico", "task/label_tokens"), f"-c task/label_tokens takes .*, and {CNN}.* expected a ViT or a hyb"),
    (("model/resnet_pico", "attention/window"), f"-c attention/window changes the backbone of .*, and {CNN}"),
    (("model/resnet_pico", "pool/additive"), f"-c pool/additive changes the backbone of .*, and {CNN}"),
    (
        ("model/vit_pico", "pretrain/mae", "pool/map"),
        "-c pool/map changes the head of .* MAE of -c pretrain/mae has no",
    ),
    (("attention/window", "pretrain/mae"), "-c attention/window changes .* none is: -c quickstart or -c model/NAME go"),
    (("pretrain/mae", "finetune"), "two runs, `vit fit ... -c pretrain/mae --run RUN` and then `vit fit -c finetune -"),
    (("pretrain/aim", "distill"), "-c distill after -c pretrain/aim: these are two runs"),
]


@pytest.mark.parametrize(("names", "message"), REFUSED)
def test_what_the_net_before_lacks_is_said_before_anything_is_parsed(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        refuse_disorder([f"--config={resolve(name)}" for name in ("base", *names)])
    assert "\n" not in str(refused.value)


def test_a_fit_refuses_before_it_parses() -> None:
    with pytest.raises(ValueError, match=f"-c pretrain/mae takes the backbone of the net before it, and {CNN}"):
        parse("model/resnet_pico", "pretrain/mae")
    with pytest.raises(ValueError, match=r"^--model.net vit.models.MAE takes the backbone .* has none"):
        parse("model/resnet_pico", args=("--model.net", "vit.models.MAE"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("model/vit_pico", "attention/window", "model/resnet_pico"), "model.net is a CNN, which has no backbone"),
        (("quickstart", "attention/window", "mixer/sra"), "mixer is a SpatialReduction, which has no mechanism"),
    ],
)
def test_a_choice_that_a_later_config_undoes_is_told(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^-c attention/window would change nothing: .*{message}; it goes after that"):
        parse(*names)


def test_of_a_users_own_config_the_path_is_named(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    rotary = {"class_path": "vit.layers.Rotary2d", "init_args": {"temperature": 50.0}}
    content: dict = {"rotary": rotary}
    for part in ("mixer", "block", "backbone", "net", "model"):
        content = {part: {"init_args": content}}
    mine.write_text(json.dumps(content))
    config = f"--config={mine}"
    with pytest.raises(ValueError, match=f"^-c {mine} would change nothing: .* is a SpatialReduction, which has no ro"):
        parse("model/vit_pico", args=(config, f"--config={resolve('mixer/sra')}"))


def test_a_later_model_may_replace_one_and_what_else_a_config_sets_keeps_it() -> None:
    assert parse("quickstart", "model/resnet_pico").init_args.net.class_path == "vit.models.CNN"
    for names in (
        ("model/vit_pico", "model/resnet_pico"),
        ("model/resnet_pico", "model/vit_pico", "pretrain/aim"),
        ("model/resnet_pico", "finetune"),
        ("model/vit_pico", "pretrain/mae", "task/label_tokens"),
    ):
        refuse_disorder([f"--config={resolve(name)}" for name in ("base", *names)])


@pytest.mark.parametrize("names", [("pretrain/mae", "attention/additive"), ("model/conformer_nano", "pretrain/simmim")])
def test_the_backbone_that_is_pretrained_is_the_users(names: tuple[str, ...]) -> None:
    backbone = parse(*names).init_args.net.init_args.backbone.init_args
    if names[0] == "model/conformer_nano":
        assert (backbone.embed_dim, backbone.block.class_path) == (96, "vit.layers.ConformerBlock")
    else:
        assert backbone.block.init_args.mixer.init_args.mechanism.class_path == "vit.attention.Additive"


def test_a_net_that_is_not_ours_is_left_to_the_parser() -> None:
    def stack(net: str) -> list[str]:
        named, part = {"class_path": net}, {"init_args": {"backbone": {}}}
        return [f"--config={json.dumps({'model': {'init_args': {'net': what}}})}" for what in (named, part)]

    refuse_disorder(stack("torch.nn.Linear"))
    with pytest.raises(ValueError, match=r"changes the backbone of the net before it, and the CNN of .* has none"):
        refuse_disorder(stack("vit.models.CNN"))
