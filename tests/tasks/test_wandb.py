"""An offline run is read back from wandb's own log: LevelDB blocks of protocol buffers."""

import importlib.util
import json
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vit.tasks.checkpoint import Checkpoints
from vit.tasks.classify import Classifier
from vit.tasks.pictures import Confusion
from vit.tasks.release import Release
from vit.tasks.wandb import Wandb, _has_key

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb")


@pytest.fixture
def unplugged(monkeypatch, tmp_path):
    """No key, and a network that nobody may ask."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked for a login"))


def test_an_offline_fit_and_test_leave_history_config_picture_and_bundle(
    unplugged, tiny_net, digits, trainer, tmp_path, capfd
):
    pytest.importorskip("wandb")
    run = tmp_path / "runs" / "mine"
    logger, task = Wandb(str(run), log_bundle=True), Classifier(tiny_net)
    logger.log_hyperparams({"model": {"optimizer": {"lr": 0.001}}, "data": {"dataset": "digits"}})
    fitted = trainer(run, logger=logger, log_every_n_steps=2, callbacks=[Confusion(), Release(), Checkpoints()])
    fitted.fit(task, digits)
    (measured,) = fitted.test(task, digits, verbose=False)
    logger.finish()
    assert re.fullmatch(
        r"wandb: offline; upload later with `wandb sync .*mine/wandb/offline-run-\*`\n", capfd.readouterr().out
    )

    (folder,) = (run / "wandb").glob("offline-run-*")
    (log,) = folder.glob("*.wandb")
    records = settled(log)
    history = [values(record.history.item) for record in records if record.WhichOneof("record_type") == "history"]
    logged = {name for row in history for name in row}
    assert {"train/loss", "train/loss_step", "lr", "val/loss", "val/acc", "test/loss", "test/acc"} <= logged
    assert [row["test/acc"] for row in history if "test/acc" in row] == [measured["test/acc"]]
    assert [row["trainer/global_step"] for row in history if "val/acc" in row] == [5, 11]
    config = [update for record in records for update in record.config.update]
    assert {update.key: json.loads(update.value_json) for update in config} == {
        "model": {"optimizer": {"lr": 0.001}},
        "data": {"dataset": "digits"},
    }
    pictures = sorted((folder / "files" / "media" / "images").rglob("*.png"))
    assert [path.parent.name for path in pictures] == ["test", "val"]
    assert np.asarray(Image.open(pictures[0]).convert("L")).std() > 5
    artifacts = [record.artifact for record in records if record.WhichOneof("record_type") == "artifact"]
    assert {entry.path for artifact in artifacts for entry in artifact.manifest.contents} >= {"model.json"}
    started = next(record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (started.display_name, started.run_id) == ("mine", Wandb(str(run)).version)


def settled(log: Path) -> list[Any]:
    """What is in it once wandb's own process has written the end of the run."""
    for _ in range(300):
        records = list(read(log))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{log} has no end after half a minute")


def read(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_a_key_is_found_in_the_environment_or_netrc(unplugged, monkeypatch, tmp_path):
    assert not _has_key()
    (tmp_path / "no-netrc").write_text("machine api.wandb.ai login user password x\n")
    assert _has_key()
    (tmp_path / "no-netrc").write_text("machine elsewhere.org login user password x\n")
    assert not _has_key()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert _has_key()


def test_without_wandb_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package wandb: pip install wandb$"):
        Wandb()
