"""The command line: what is rewritten, what is refused, and with which exit code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from vit import cli
from vit.commandline.arguments import take, with_configs, with_flags
from vit.commandline.overlays import config_folder, packaged_names, resolve

TINY = ["--model.net.backbone.embed_dim=16", "--model.net.backbone.depth=1", "--trainer.max_epochs=1"]
TINY += ["--model.net.backbone.patch_size=4", "--trainer.limit_train_batches=2"]


def folder_of_classes(root: Path, *classes: str, pictures: int = 10) -> Path:
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(pictures):
            Image.new("RGB", (16, 16), (len(name), 20 * number, 7)).save(root / name / f"{number}.png")
    return root


def test_help_lists_every_command_and_needs_no_torch() -> None:
    code = "import sys; from vit.cli import main; code = main(['--help']); print('torch' in sys.modules, code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *text, last = done.stdout.splitlines()
    assert last == "False 0"
    assert all(re.search(rf"^  vit {name}\b", "\n".join(text), re.MULTILINE) for name in cli.COMMANDS)


def test_python_m_vit_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "vit", "fti"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "vit: unknown command 'fti'; did you mean 'fit'?\n"


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "explain"])
def test_help_of_a_command(command: str, capsys) -> None:
    assert cli.main([command, "--help"]) == 0
    assert f"usage: vit {command}" in capsys.readouterr().out


def test_options_of_the_command_are_in_its_help(capsys) -> None:
    cli.main(["fit", "--help"])
    out = capsys.readouterr().out
    assert all(option in out for option in ("--run", "--resume", "--data.root", "--trainer.max_epochs"))


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ("test", ["runs/a"], ["--load", "runs/a"]),
        ("test", ["runs/a", "--data.root", "x"], ["--data.root", "x", "--load", "runs/a"]),
        ("test", ["--data.root", "x", "runs/a"], ["--data.root", "x", "--load", "runs/a"]),
        ("test", ["--data.root=x", "runs/a"], ["--data.root=x", "--load", "runs/a"]),
        ("test", ["--load", "runs/a"], ["--load", "runs/a"]),
        ("validate", ["-c", "data/mnist", "runs/a"], ["-c", "data/mnist", "--load", "runs/a"]),
        ("predict", ["runs/a", "x.png", "y"], ["--load", "runs/a", '--data.pictures=["x.png", "y"]']),
        ("predict", ["--load", "runs/a", "x.png"], ["--load", "runs/a", '--data.pictures=["x.png"]']),
        ("predict", ["--load=runs/a", "x.png"], ["--load=runs/a", '--data.pictures=["x.png"]']),
        ("predict", ["runs/a", "x.png", "--out", "p.csv"], None),
    ],
)
def test_positional_forms_become_long_forms(command: str, args: list[str], expected: list[str] | None) -> None:
    expected = expected or ["--out", "p.csv", "--load", "runs/a", '--data.pictures=["x.png"]']
    assert with_flags(command, args) == expected


@pytest.mark.parametrize(
    ("command", "args", "message"),
    [
        ("fit", ["quickstart"], "unexpected argument 'quickstart'; a config goes after -c: vit fit -c quickstart"),
        ("test", ["runs/a", "runs/b"], "unexpected argument 'runs/b'"),
        ("test", ["--load", "runs/a", "runs/b"], "unexpected argument 'runs/b'"),
    ],
)
def test_arguments_without_a_place(command: str, args: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        with_flags(command, args)
    assert str(caught.value) == message


def test_take() -> None:
    assert take(["--run", "a", "--x", "1"], "--run", "--resume") == (["a", None], ["--x", "1"])
    assert take(["--run=a", "--run", "b"], "--run") == (["b"], [])
    with pytest.raises(ValueError, match="--run expects a value"):
        take(["--run"], "--run")


def test_packaged_configs_come_before_paths(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart.yaml", "mine.yaml"):
        (tmp_path / name).write_text("seed_everything: 1\n")
    assert resolve("quickstart") == resolve("quickstart.yaml") == config_folder() / "quickstart.yaml"
    assert resolve("./quickstart.yaml") == Path("quickstart.yaml")
    assert resolve("mine") == resolve("mine.yaml") == Path("mine.yaml")
    args, paths = with_configs(["-c", "mine", "--x=1", "--config=model/vit_tiny"])
    assert args == ["--config=mine.yaml", "--x=1", f"--config={config_folder() / 'model/vit_tiny.yaml'}"]
    assert [Path(path).stem for path in paths] == ["mine", "vit_tiny"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1, 2\nb: 3\n", "bad.yaml is not YAML at line 2: "),
        ("- a\n", "bad.yaml: expected options as `key: value`, got list"),
        ("# only a comment\n", "bad.yaml: expected options as `key: value`, got nothing"),
        (b"\xff\xfe\x00", "bad.yaml is not YAML: it is not UTF-8 text"),
    ],
)
def test_configs_that_are_none(tmp_path, monkeypatch, content: str | bytes, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as caught:
        resolve("bad.yaml")
    assert str(caught.value).startswith(message)


def test_an_unknown_config_lists_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no config 'vit_tinny': .*did you mean 'model/vit_tiny'"):
        resolve("vit_tinny")
    with pytest.raises(ValueError, match=r"packaged are .*quickstart"):
        resolve("zzzzzz")
    assert {"base", "quickstart", "model/vit_tiny", "data/cifar10", "logger/wandb"} <= set(packaged_names())


BAD = {
    "unknown config": (["fit", "-c", "quikstart"], "did you mean 'quickstart'?"),
    "missing config file": (["fit", "-c", "nowhere/mine.yaml"], "no config 'nowhere/mine.yaml'"),
    "no model": (["fit"], "missing model.net: -c quickstart or -c model/NAME sets one"),
    "no start": (["fit", "-c", "finetune"], "--model.init_from RUN takes that of trained weights"),
    "no teacher": (["fit", "-c", "quickstart", "-c", "distill"], "--model.teacher RUN is the trained classifier"),
    "unknown class": (["fit", "-c", "quickstart", "--model.net", "vit.models.Vit"], "did you mean 'ViT'?"),
    "misspelt option": (["fit", "-c", "quickstart", "--data.rot", "x"], "did you mean '--data.root'?"),
    "patch size": (
        ["fit", "-c", "quickstart", "--model.net.backbone.patch_size", "3"],
        "image 8x8 is not divisible by patch size 3x3",
    ),
    "channels": (["fit", "-c", "quickstart", "--data.channels", "2"], "channels"),
    "no such folder": (["fit", "-c", "quickstart", "--data.root", "nowhere"], "nowhere: expected a folder of class"),
    "empty folder": (["fit", "-c", "quickstart", "--data.root", "empty"], "empty: "),
    "one class": (["fit", "-c", "quickstart", "--data.root", "one"], "expected at least two class folders"),
    "val class missing from train": (["fit", "-c", "quickstart", "--data.root", "split"], "dog"),
    "unknown data": (["fit", "-c", "quickstart", "--data.dataset", "cifar"], "did you mean 'cifar10'"),
    "no data and no network": (["fit", "-c", "quickstart", "--data.dataset", "cifar10", *TINY], "'cifar10' not found"),
    "no accelerator": (["fit", "-c", "quickstart", "--trainer.accelerator", "tpu"], "torch_xla"),
    "no run": (["fit", "--resume", "runs/none"], "runs/none holds no run"),
    "both run and resume": (["fit", "--resume", "runs/a", "--run", "runs/b"], "leave --run runs/b out"),
    "no model given": (["test"], "vit test expects a model"),
    "no such model": (["test", "runs/none"], "no model 'runs/none'"),
    "folder without a model": (["test", "empty"], "no model in empty"),
    "no such checkpoint": (["validate", "runs/none/x.ckpt"], "no checkpoint runs/none/x.ckpt"),
    "a URL": (["test", "https://example.org/model"], "expected a local path"),
    "output format": (["predict", "empty", "x.png", "--out", "x.txt"], "--out expects a file ending in .csv or .json"),
    "demo takes nothing": (["demo", "--fast"], "vit demo takes only --run DIR"),
}


@pytest.fixture
def no_network(monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("socket.getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("args", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, args, message) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    folder_of_classes(tmp_path / "one", "cat")
    folder_of_classes(tmp_path / "split/train", "cat", "fox")
    folder_of_classes(tmp_path / "split/val", "cat", "dog", "fox")
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(args) == cli.WRONG_USE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vit: ") and err.count("\n") == 1 and message in err
    assert sorted(path for path in tmp_path.rglob("*") if path.name != "data") == before


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ValueError, match="did you mean 'quickstart'"):
        cli.main(["--debug", "fit", "-c", "quikstart"])


def test_an_error_of_ours_is_one_line_and_debug_shows_where(monkeypatch, capsys) -> None:
    monkeypatch.setattr("vit.run.fit", lambda args: 1 / 0)
    assert cli.main(["fit", "-c", "quickstart"]) == cli.FAILED
    assert capsys.readouterr().err == "vit: ZeroDivisionError: division by zero; --debug shows where\n"
    with pytest.raises(ZeroDivisionError):
        cli.main(["fit", "-c", "quickstart", "--debug"])


def test_ctrl_c_exits_with_130(monkeypatch, capsys) -> None:
    def interrupted(args: list[str]) -> None:
        raise KeyboardInterrupt("interrupted; `vit fit --resume runs/a` continues")

    monkeypatch.setattr("vit.run.fit", interrupted)
    assert cli.main(["fit", "-c", "quickstart"]) == cli.INTERRUPTED
    assert capsys.readouterr().err == "vit: interrupted; `vit fit --resume runs/a` continues\n"


def test_fit_test_predict_as_typed(tmp_path, monkeypatch, capfd) -> None:
    """The everyday path, on one's own pictures; and nothing but our own lines on the terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder_of_classes(tmp_path / "photos", "cat", "dog")
    args = ["--data.root", "photos", "--data.img_size", "16", "--run", "runs/mine", *TINY]
    assert cli.main(["fit", "-c", "quickstart", *args]) == 0
    assert cli.main(["test", "runs/mine"]) == 0
    assert cli.main(["validate", "--load", "runs/mine"]) == 0
    assert cli.main(["predict", "runs/mine", "photos/dog", "photos/cat/3.png", "--out", "out/p.csv"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    first, second, third, fourth, *table = out.splitlines()
    assert re.fullmatch(r"epoch 1/1  val/loss .*", first)
    assert re.fullmatch(
        r"runs/mine: val/loss \d\.\d{4}, val/acc [01]\.\d{4}; \d+ s, \d+% of it waiting .*; next: .*", second
    )
    assert re.fullmatch(r"photos: accuracy \S+ \(95 % interval \S+ to \S+, n = 4\)", third)
    assert re.fullmatch(r"val/loss \S+, val/acc \S+", fourth)
    assert table[0].split() == ["picture", "class", "probability", "then"] and len(table) == 12
    assert (tmp_path / "out/p.csv").read_text().splitlines()[0] == "file,label,probability,label_2,probability_2,error"
    assert not (tmp_path / "lightning_logs").exists()
