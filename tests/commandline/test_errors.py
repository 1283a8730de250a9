"""Whatever is mistyped, the message is one line: where, what was expected, what came, the nearest name."""

import pytest

from vit.commandline.errors import nearest, one_line
from vit.commandline.options import VitCLI
from vit.commandline.overlays import resolve
from vit.commandline.quiet import quiet

BACKBONE = "--model.net.backbone"
MECHANISM = f"{BACKBONE}.block.mixer.mechanism"

CASES = [
    # misspelt options at any depth
    (["--data.rot", "x"], "--data.rot: no such option; did you mean '--data.root'?"),
    (["--trainer.max_epoch", "3"], "--trainer.max_epoch: no such option; did you mean '--trainer.max_epochs'?"),
    (["--dta.root=x"], "--dta.root: no such option; did you mean '--data.root'?"),
    (["--rum", "x"], "--rum: no such option; did you mean '--run'?"),
    (["--model.nte", "x"], "model.nte: Classifier has no option 'nte'; did you mean 'net'?"),
    (
        ["--model.optimiser.lr", "1"],
        "model.optimiser.lr: Classifier has no option 'optimiser'; did you mean 'optimizer'?",
    ),
    (["--model.optimizer.lrr", "1"], "model.optimizer.lrr: AdamW has no option 'lrr'; did you mean 'lr'?"),
    (
        [f"{BACKBONE}.embed_dmi", "64"],
        "model.net.backbone.embed_dmi: Backbone has no option 'embed_dmi'; did you mean 'embed_dim'?",
    ),
    (
        [f"{BACKBONE}.block.mixer.num_head", "2"],
        "model.net.backbone.block.mixer.num_head: SelfAttention has no option 'num_head'; did you mean 'num_heads'?",
    ),
    (
        [f"{MECHANISM}.rank", "2"],
        "model.net.backbone.block.mixer.mechanism.rank: Softmax has no option 'rank'; expected one of attn_drop, scale",
    ),
    # unknown classes
    (
        [MECHANISM, "vit.attention.Softmx"],
        "model.net.backbone.block.mixer.mechanism: vit.attention has no 'Softmx'; did you mean 'Softmax'?",
    ),
    (
        [MECHANISM, "Softmx"],
        "model.net.backbone.block.mixer.mechanism: unknown class 'Softmx'; did you mean 'Softmax'?",
    ),
    (["--model.net", "vit.modles.ViT"], "model.net: vit has no 'modles'; did you mean 'models'?"),
    (["--model.net", "vit.models.ViTT"], "model.net: vit.models has no 'ViTT'; did you mean 'ViT'?"),
    (
        ["--trainer.callbacks+=EarlyStoping"],
        "trainer.callbacks: unknown class 'EarlyStoping'; did you mean 'EarlyStopping'?",
    ),
    (
        [MECHANISM, "vit.layers.Mlp"],
        "model.net.backbone.block.mixer.mechanism: expected a Mechanism, got vit.layers.Mlp",
    ),
    (
        [MECHANISM, "os.system"],
        "model.net.backbone.block.mixer.mechanism: os.system may not be imported from a config: "
        "expected a class of vit, lightning.pytorch, torch.nn or torch.optim",
    ),
    # wrong types
    (["--data.batch_size", "many"], "data.batch_size: expected int, got 'many'"),
    (
        ["--data.augment", "mediun"],
        "data.augment: expected one of none, light, medium, strong; got 'mediun'; did you mean 'medium'?",
    ),
    (["--trainer.max_epochs", "three"], "trainer.max_epochs: expected int or nothing (null), got 'three'"),
    (["--data.img_size", "a"], "data.img_size: expected int or tuple[int, int] or nothing (null), got 'a'"),
    ([f"{BACKBONE}.embed_dim", "x"], "model.net.backbone.embed_dim: expected int, got 'x'"),
    (["--model.optimizer.lr", "a"], "model.optimizer.lr: expected float, got 'a'"),
    # data, described while options are parsed
    (
        ["--data.dataset", "digit"],
        "unknown data set 'digit', expected one of digits, mnist, fashion_mnist, cifar10, cifar100, "
        "scenes_texture, scenes_shape, scenes_relation, folder, csv, npz, unlabelled; "
        "did you mean 'digits'?",
    ),
    (["--data.root", "nowhere"], "nowhere: expected a folder of class folders, found nothing"),
    # places
    (["stray"], "unexpected argument 'stray': options begin with --, configs follow -c"),
]


def parse(*args: str) -> VitCLI:
    return VitCLI("fit", [f"--config={resolve('base')}", f"--config={resolve('quickstart')}", *args])


@pytest.mark.parametrize(("args", "message"), CASES, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_wrong_option(args: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(*args)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("data: {rot: x}", "data.rot: no such option; did you mean 'root'?"),
        ("modle: {net: x}", "modle.net: no such option; did you mean 'model'?"),
        ("run: elsewhere", "run: no such option"),
        (
            "model: {init_args: {net: {init_args: {backbone: {init_args: {block: {init_args: {mixer: {init_args: "
            "{num_head: 2}}}}}}}}}}",
            "model.net.backbone.block.mixer.num_head: SelfAttention has no option 'num_head'; did you mean",
        ),
        ("model: {init_args: {optimizer: {lr: fast}}}", "model.optimizer.lr: expected float, got 'fast'"),
        ("trainer: {max_epochs: three}", "trainer.max_epochs: expected int or nothing (null), got 'three'"),
    ],
)
def test_wrong_config(tmp_path, yaml: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml)
    with pytest.raises(ValueError) as caught:
        parse(f"--config={path}")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([f"{BACKBONE}.patch_size", "3"], "image 8x8 is not divisible by patch size 3x3"),
        (["--data.batch_size", "0"], "batch_size must be at least 1, got 0"),
        (
            ["--trainer.default_root_dir", "x"],
            "trainer.default_root_dir: results go to the folder that --run names, set that instead",
        ),
    ],
)
def test_parts_that_refuse_their_arguments(tmp_path, args: list[str], message: str) -> None:
    with quiet(), pytest.raises(ValueError) as caught:
        parse(*args).build(tmp_path)
    assert str(caught.value) == message


def test_a_config_imports_nothing_outside_the_allow_list(tmp_path, monkeypatch) -> None:
    (tmp_path / "outside.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for option in ("--trainer.callbacks+=outside.Evil", "--model=outside.Evil", "--model.net=outside.Evil"):
        with pytest.raises(ValueError, match=r"outside\.Evil may not be imported from a config"):
            parse(option)
    assert not (tmp_path / "ran").exists()


def test_other_errors_lose_their_line_breaks() -> None:
    assert one_line(ValueError("first\n  second")) == "first second"
    assert one_line(ValueError()) == "ValueError"


def test_nearest() -> None:
    assert nearest("depht", ["depth", "dim"]) == "; did you mean 'depth'?"
    assert nearest("zzz", ["depth", "dim"]) == "; expected one of depth, dim"
    assert nearest("zzz", [f"option{i}" for i in range(100)]) == ""
