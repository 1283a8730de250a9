"""Every command of notebooks/pretrain_finetune.md, on a small setting."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vit
from vit import cli
from vit.data import catalog

PAGE = Path(__file__).parents[1] / "notebooks" / "pretrain_finetune.md"
SMALL = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=3", "--data.augment=none", "--data.channels=1"]
SMALL += ["--data.img_size=8", "--model.net.backbone.patch_size=2", "--data.batch_size=16"]
OF_NETS = ("--model.net.backbone",)


def commands() -> list[list[str]]:
    """What stands in fences, a command a line."""
    fenced = PAGE.read_text(encoding="utf-8").split("```")[1::2]
    return [shlex.split(line) for block in fenced for line in block.strip().splitlines()]


def photos(folder: Path) -> None:
    """Twelve digits of each class to train on, six to test on."""
    for split, count in (("train", 12), ("test", 6)):
        source = catalog.load("digits", None, split)
        assert source is not None and isinstance(source.pictures, np.ndarray)
        for label in range(10):
            place = folder / split / str(label)
            place.mkdir(parents=True)
            for number in np.flatnonzero(source.labels == label)[:count]:
                Image.fromarray(source.pictures[number][..., 0]).save(place / f"{number}.png")


def small(command: list[str]) -> list[str]:
    if command[0] != "fit":
        return command
    cnn = "model/resnet_pico" in command
    return [*command, *(option for option in SMALL if not (cnn and option.startswith(OF_NETS)))]


def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    photos(Path("my_photos"))
    for _, *command in commands():
        code = cli.main(small(command))
        _, err = capsys.readouterr()
        assert code == 0, f"{' '.join(command)}: {err}"
    names = {command[1] for command in commands()}
    assert names == {"fit", "probe", "test", "export", "explain"}
    table = json.loads(Path("probe.json").read_text())
    assert table["split"] == "val" and {row["shots"] for row in table["rows"]} == {1, 5, None}
    assert set(table["features"]) == {"mean of patches"}
    mae, tuned, lora = (vit.load(f"runs/{run}") for run in ("mae", "tuned", "lora"))
    assert tuned.net.state_dict().keys() == lora.net.state_dict().keys()
    encoder = {name for name in mae.net.state_dict() if name.startswith("backbone.")}
    assert encoder == {name for name in tuned.net.state_dict() if name.startswith("backbone.")}
    picture = next(Path("my_photos/test/7").iterdir())
    exported = vit.load("my_model.safetensors")
    assert exported.predict(picture)[0].probabilities == tuned.predict(picture)[0].probabilities
    assert len(list(Path("maps").glob("*-rollout.png"))) == 6
    assert tuned.meta["config"]["model"]["init_args"]["init_from"] == "mae"  # no path of this machine
    shutil.rmtree("runs/mae")  # a resumed run has its weights already
    assert cli.main(["fit", "--resume", "runs/tuned", "--trainer.max_epochs", "2"]) == 0
