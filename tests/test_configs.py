"""Every YAML stack parses, instantiates and yields the right number of logits; the configs travel with a wheel."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from setuptools import find_packages

from vit.commandline.options import VitCLI
from vit.commandline.overlays import config_folder, packaged_names, resolve
from vit.commandline.quiet import quiet
from vit.layers import DistilledHead
from vit.models import VARIANTS

ROOT = Path(__file__).resolve().parent.parent
NAMES = packaged_names()
PRETRAINING = [name for name in NAMES if name.startswith("pretrain/")]
MODELS = [name for name in NAMES if name.startswith("model/")]
OVERLAYS = [name for name in NAMES if name.split("/")[0] in ("attention", "block", "mixer", "position", "pool")]
DATA = {
    "digits": (10, 1, 8),
    "mnist": (10, 1, 28),
    "fashion_mnist": (10, 1, 28),
    "fashion_mnist_coarse": (5, 1, 28),
    "cifar10": (10, 3, 32),
    "cifar10_coarse": (2, 3, 32),
    "cifar100": (100, 3, 32),
    "scenes_texture": (4, 3, 32),
    "scenes_shape": (4, 3, 32),
    "scenes_relation": (4, 3, 32),
}
SHALLOW = {  # two blocks say what twelve would
    "model/vit_base": ("--model.net.backbone.depth=2",),
    "model/vit_large": ("--model.net.backbone.depth=2",),
}


@cache
def parse(*names: str, args: tuple[str, ...] = ()) -> VitCLI:
    with quiet():
        return VitCLI("fit", [f"--config={resolve(name)}" for name in ("base", *names)] + list(args))


def net_of(*names: str, args: tuple[str, ...] = ()) -> torch.nn.Module:
    cli = parse(*names, args=args)
    with quiet():
        return cli.parser.instantiate(cli.config).model.net


def logits(net: torch.nn.Module, channels: int, side: int) -> torch.Size:
    with torch.no_grad():
        return net.eval()(torch.zeros(2, channels, side, side)).shape


@pytest.mark.parametrize("name", MODELS)
def test_models_give_a_logit_per_class(name: str) -> None:
    assert logits(net_of(name, "data/cifar100", args=SHALLOW.get(name, ())), 3, 32) == (2, 100)


@pytest.mark.parametrize("name", DATA)
def test_data_sets_shape_the_net(name: str) -> None:
    classes, channels, side = DATA[name]
    assert logits(net_of("quickstart", f"data/{name}"), channels, side) == (2, classes)


def test_a_folder_shapes_the_net(tmp_path: Path) -> None:
    for name in ("cat", "dog", "eel"):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.png").touch()
    args = (f"--data.root={tmp_path}", "--data.img_size=[48,32]", "--data.channels=1")
    assert net_of("quickstart", "data/folder", args=args).num_classes == 3
    assert logits(net_of("quickstart", args=args[:1]), 3, 64) == (2, 3)


def test_pictures_without_labels_shape_a_net_to_pretrain(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").touch()
    net = net_of("model/vit_pico", "pretrain/mae", "data/unlabelled", args=(f"--data.root={tmp_path}",))
    assert type(net).__name__ == "MAE" and net.backbone.in_chans == 3
    assert net.backbone.grid[0] * net.backbone.patch_size[0] == 64


STACKS = [  # a parse takes two seconds, so that one model goes for all but `make slow`
    pytest.param(model, name, marks=[] if model == "quickstart" else [pytest.mark.slow])
    for model in ("quickstart", "model/vit_nano", "model/conformer_pico")
    for name in OVERLAYS
]


@pytest.mark.parametrize(("model", "name"), STACKS)
def test_overlays_fit_the_models(model: str, name: str) -> None:
    """Whatever was there before, what an overlay names is in the net."""
    stack = (model, name, "data/cifar100")
    written = str(yaml.safe_load(resolve(name).read_text())).replace("'", " ").split()
    named = [word for word in written if word.startswith("vit.") and "tasks" not in word]
    net = str(parse(*stack).config.model.init_args.net.as_dict())
    assert named and all(word in net for word in named)
    assert logits(net_of(*stack), 3, 32) == (2, 100)


@pytest.mark.parametrize("name", [n if "pico" in n else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_a_model_overlay_leaves_nothing_of_the_model_before(name: str) -> None:
    args = SHALLOW.get(name, ())
    alone = parse(name, "data/cifar100", args=args).config.model.init_args.net
    for before in (
        ("quickstart",) if alone.class_path.endswith("CNN") else ("quickstart", "pool/map", "mixer/lstm"),
        ("model/conformer_nano",),
        ("model/conv_then_attention_pico",),
        ("model/resnet_pico",),
    ):
        assert parse(*before, name, "data/cifar100", args=args).config.model.init_args.net == alone, before


@pytest.mark.parametrize("name", PRETRAINING)
def test_pretraining_takes_the_encoder_of_the_model_before_it(name: str) -> None:
    net = net_of("model/vit_nano", name, "data/fashion_mnist")
    assert type(net).__name__.lower() == name.split("/")[1]
    assert (net.backbone.embed_dim, len(net.backbone.encoder.blocks), net.backbone.in_chans) == (96, 6, 1)
    alone = parse(name).config.model.init_args.net
    assert alone.init_args.backbone.class_path.endswith("Backbone")
    with (
        pytest.raises(ValueError, match="ConvStem looks at other patches")
        if name != "pretrain/simmim"
        else nullcontext()
    ):
        net_of("model/conformer_pico", name)


def test_the_later_overlay_wins() -> None:
    for first, second, expected in (("learned", "none", "NoPositions"), ("none", "learned", "LearnedPositions")):
        net = parse("model/vit_nano", f"position/{first}", f"position/{second}").config.model.init_args.net
        assert net.init_args.backbone.init_args.pos_embed.class_path == f"vit.layers.{expected}"


def test_attention_after_a_mixer_that_is_none_is_told() -> None:
    with pytest.raises(ValueError, match=r"mixer.mechanism.class_path: Fourier has no option 'mechanism.class_path'$"):
        parse("quickstart", "mixer/fnet", "attention/softmax")
    net = parse("quickstart", "mixer/lstm", "mixer/aft_full").config.model.init_args.net
    mixer = net.init_args.backbone.init_args.block.init_args.mixer
    assert mixer.as_dict() == {"class_path": "vit.layers.AFTFull", "init_args": {"rank": 16}}


def test_headers_say_what_it_is_and_what_to_type() -> None:
    for name in NAMES:
        lines = resolve(name).read_text().splitlines()
        header = [line for line in lines if line.startswith("#")]
        assert lines[0].startswith("# "), name
        study = next((kind for kind in ("mechanisms", "transfer") if kind in name), "data-size")
        command = f"vit study {study} -c {name}" if name.startswith("study/") else "vit fit -c"
        assert name == "base" or any(command in line for line in header), name
        assert name == "base" or sum(line.startswith("# Expect") for line in header) == 1, name
        assert all(len(line) <= 120 for line in lines), name


def test_commands_in_headers_work() -> None:
    """Every `vit fit -c ...` a header names is a stack that has a model."""
    for name in NAMES:
        for line in resolve(name).read_text().splitlines():
            if line.startswith("#   vit fit"):
                words = line.partition("vit fit")[2].split()
                stack = [words[place + 1] for place, word in enumerate(words[:-1]) if word == "-c"]
                assert all(entry in NAMES for entry in stack), line
                has_net = {"quickstart"} & set(stack) or any(
                    entry.startswith(("model/", "pretrain/")) for entry in stack
                )
                assert has_net or "--model.init_from" in words, line


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("finetune")])
def test_ways_of_finetuning_parse_with_any_model(name: str) -> None:
    for model in ("model/vit_nano", "model/conformer_pico"):
        tune = parse(model, "finetune", name).config.model.init_args.tune.class_path
        assert tune == yaml.safe_load(resolve(name).read_text())["model"]["init_args"]["tune"] or name.endswith("lora")
    later = parse("model/vit_nano", "finetune", "finetune/lora", name).config.model.init_args
    assert name.endswith("lora") or later.tune.class_path == tune  # leaves nothing of the one before


def test_distilling_keeps_the_recipe() -> None:
    config = parse("quickstart", "distill", args=("--model.teacher=runs/cnn",)).config.model
    assert config.class_path == "vit.tasks.distill.Distiller" and config.init_args.optimizer.init_args.lr == 2e-3


def test_a_distillation_token_learns_from_the_teacher() -> None:
    for model in ("quickstart", "model/vit_nano"):
        net = net_of(model, "distill", "distill/token", "data/digits", args=("--model.teacher=runs/cnn",))
        assert isinstance(net.head, DistilledHead) and net.backbone.grid.prefix == ("cls", "dist")


def test_losses_stack_in_any_order() -> None:
    for stack in (("loss/binary", "loss/mixed"), ("loss/mixed", "loss/binary")):
        options = parse("quickstart", *stack).config.model.init_args
        assert options.criterion.class_path == "vit.tasks.losses.BinaryCrossEntropy"
        assert options.mixing.init_args.as_dict() == {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "probability": 1.0}


def test_gradient_checkpointing_reaches_the_encoder_of_any_task() -> None:
    for stack in (("quickstart",), ("model/vit_nano", "pretrain/mae"), ("model/conformer_pico",)):
        nets = [net_of(*stack, *more, "data/fashion_mnist") for more in ((), ("grad_checkpointing",))]
        assert [net.backbone.encoder.grad_checkpointing for net in nets] == [False, True]


def test_packages_are_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted([*find_packages(ROOT, include=["vit", "vit.*"]), "vit.configs"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A wheel of this tree, unpacked where `pip install --target` would put it."""
    tree, target = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("site")
    for name in ("vit", "configs"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tree / name)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tree / "dist" / done.stdout.splitlines()[-1]) as wheel:
        wheel.extractall(target)
    return target


def run_installed(installed: Path, empty: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run([sys.executable, *command], cwd=empty, env=environment, capture_output=True, text=True)


def test_configs_are_found_by_an_installed_wheel(installed: Path, tmp_path: Path) -> None:
    names = {path.relative_to(installed / "vit/configs") for path in (installed / "vit/configs").rglob("*.yaml")}
    assert names == {path.relative_to(config_folder()) for path in config_folder().rglob("*.yaml")}
    code = "from vit.commandline.overlays import resolve; print(resolve('quickstart'), resolve('model/vit_tiny'))"
    done = run_installed(installed, tmp_path, "-c", code)
    configs = installed / "vit/configs"
    assert done.stdout.split() == [str(configs / "quickstart.yaml"), str(configs / "model/vit_tiny.yaml")], done.stderr


def test_an_installed_wheel_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    done = run_installed(installed, tmp_path, "-m", "vit", "fit", "-c", "quickstart", "--trainer.fast_dev_run", "true")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("variant", VARIANTS)
def test_model_configs_spell_the_table_of_variants(variant: str) -> None:
    path = ROOT / "configs" / "model" / f"vit_{variant}.yaml"
    assert path.is_file()
    net = yaml.safe_load(path.read_text())["model"]["init_args"]["net"]
    backbone = net["init_args"]["backbone"]["init_args"]
    heads = backbone["block"]["init_args"]["mixer"]["init_args"]["num_heads"]
    assert (backbone["embed_dim"], backbone["depth"], heads) == VARIANTS[variant][:3]
