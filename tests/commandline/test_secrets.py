"""Keys and tokens: refused as options, and never copied from the environment into what a run leaves."""

import warnings
from pathlib import Path

import pytest

from tests.helpers import TINY
from vit import evaluate, run
from vit.commandline.secrets import refuse

SENTINEL = "0123456789abcdef0123456789SENTINEL"


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"trainer": {"logger": [{"init_args": {"api_key": "x"}}]}}, r"trainer\.logger\[0\]\.init_args\.api_key"),
        ({"wandb_api_key": "x"}, "wandb_api_key"),
        ({"a": {"auth_token": "x"}}, "a.auth_token"),
        ({"password": "x"}, "password"),
        ({"project": "hf_" + "a1" * 17}, "project"),
        ({"a": ["b", "ghp_" + "a1" * 18]}, r"a\[1\]"),
        ({"tracking_uri": "https://me:pass@host/x"}, "tracking_uri"),
    ],
)
def test_what_looks_like_a_secret_is_refused_by_name_only(config: dict, key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key} looks like a secret, .* environment can hold it$"):
        refuse(config, {})


def test_values_of_secret_variables_are_refused_wherever_they_stand() -> None:
    known = {"WANDB_API_KEY": SENTINEL, "MY_PASSWORD": "short", "HOME": "/home/someone"}
    with pytest.raises(ValueError, match=r"^a\.b\[0\] holds the value of WANDB_API_KEY") as caught:
        refuse({"a": {"b": [f"x{SENTINEL}y"]}}, known)
    assert SENTINEL not in str(caught.value)
    refuse({"a": "short", "b": "/home/someone"}, known)


def test_words_that_only_sound_like_secrets_are_options() -> None:
    words = {"token": "cls", "cls_token": "mean", "num_tokens": "3", "token_mixer": "x", "key": "k", "keys": "q"}
    places = {"path": "git@host:me/x", "url": "https://host:80/a@b", "secrets": {"a": "b"}, "init_from": "timm:vit"}
    refused = []
    for name, value in {**words, "api_key": None, **places}.items():
        try:
            refuse({name: value}, {})
        except ValueError:
            refused.append(name)
    assert refused == []


def test_a_secret_option_ends_a_fit_before_it_leaves_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", SENTINEL)
    wandb = ["-c", "logger/wandb", f"--trainer.logger.project={SENTINEL}"]
    with pytest.raises(ValueError, match=r"trainer\.logger\.init_args\.project holds the value of SOME_TOKEN"):
        run.fit([*TINY, *wandb, "--run", str(tmp_path / "run")])
    config = tmp_path / "mine.yaml"
    config.write_text("trainer: {logger: {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {name: x}}}")
    with pytest.raises(ValueError, match=r"trainer\.logger\.init_args\.save_dir looks like a secret"):
        login = "--trainer.logger.save_dir=https://me:pass@host/x"
        run.fit([*TINY, "-c", str(config), login, "--run", str(tmp_path / "run")])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_nothing_a_run_leaves_holds_a_key_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "SOME_TOKEN", "DATABASE_PASSWORD", "AWS_SECRET_ACCESS_KEY", "A_QUIET_NAME"):
        monkeypatch.setenv(name, SENTINEL)
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "run"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="wandb")
        run.fit([*TINY, "-c", "logger/wandb", "--run", str(folder)])
        evaluate.test(["--load", str(folder), "--record", str(folder / "results.jsonl")])
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert {"results.jsonl", "report.html", "last.ckpt", "debug.log"} <= {path.name for path in left}
    assert sum(path.suffix == ".wandb" for path in left) == 2
    assert not [path for path in left if SENTINEL.encode() in path.read_bytes()]
