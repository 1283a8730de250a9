"""MODEL on a command line: a run folder, a bundle or its one file, or a checkpoint of a run, with all it knows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from torch import nn

from vit import bundle
from vit.commandline import record
from vit.commandline.runfolder import CONFIG, nearby
from vit.data.images import Preprocessing
from vit.models.token_labels import refuse_token_labels
from vit.spec import build
from vit.tasks.checkpoint import load_checkpoint
from vit.tasks.start import find, known_of, weights_of


@dataclass(frozen=True)
class Trained:
    """A trained net; ``checkpoint`` is where its weights come from, None for a bundle's released ones."""

    folder: Path
    checkpoint: Path | None
    net: nn.Module
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    config: dict[str, Any]
    manifest_hash: str | None = None

    def model(self) -> bundle.Model:
        """Ready to predict.

        Raises:
            ValueError: the net labels patches.
        """
        refuse_token_labels(self.net, self.folder)
        return bundle.Model(self.net, self.classes, self.preprocessing, {})

    def evaluation_config(self) -> dict[str, Any]:
        """The run's configuration, for one device of this machine; a stand-in for the net, which is not built again.

        Raises:
            ValueError: a bundle made in Python, without a configuration.
        """
        if not self.config:
            raise ValueError(f"the model in {self.folder} carries no configuration: expected one in {bundle.RECORD}")
        trainer, model = self.config.get("trainer", {}), self.config.get("model", {})
        init_args = {**model.get("init_args", {}), "net": {"class_path": "torch.nn.Identity"}, "compile": False}
        kept = {key: trainer[key] for key in ("callbacks", "logger") if key in trainer}
        return {**self.config, "trainer": kept, "model": {**model, "init_args": init_args}}


def refuse_other_scale(trained: Trained, data: Namespace) -> None:
    """Refuse (ValueError) options of data with another mean or deviation of pictures than the net was trained with."""
    for name in ("mean", "std"):
        given, own = data[name], getattr(trained.preprocessing, name)
        if given not in (None, trained.config.get("data", {}).get(name), list(own)):
            raise ValueError(f"the model was trained with data.{name} {list(own)}, got {given}: leave it out")


def open_trained(model: str) -> Trained:
    """Open MODEL on the CPU. A run without a bundle, because it was interrupted, gives its best checkpoint.

    Raises:
        ValueError: nothing there, or nothing that can be opened.
    """
    path, folder = find(model), bundle.folder_of(Path(model))
    if path is None and not folder.is_dir():
        raise ValueError(f"no model {model!r}: expected a run folder, a bundle or a .ckpt file{nearby(folder)}")
    if path is None:
        raise ValueError(f"no model in {folder}: expected {bundle.RECORD} and {bundle.WEIGHTS}, or a run's checkpoints")
    if path.suffix == ".ckpt":
        return _from_checkpoint(path)
    return _from_bundle(path.parent if path.is_file() else path, path)


def _from_bundle(folder: Path, path: Path) -> Trained:
    """Of a bundle, or of the one file in its place; results of a test go to ``folder``."""
    model = bundle.load(path, device="cpu")
    config = _config(folder) if path == folder and (folder / CONFIG).is_file() else model.meta.get("config") or {}
    manifest_hash = model.meta.get("data", {}).get("manifest_hash")
    return Trained(folder, None, model.net, model.classes, model.preprocessing, config, manifest_hash)


def _from_checkpoint(path: Path) -> Trained:
    if not path.is_file():
        raise ValueError(f"no checkpoint {path}{nearby(path)}")
    folder = next((parent for parent in path.parents if (parent / CONFIG).is_file()), None)
    if folder is None:
        raise ValueError(f"{path} lies in no run folder: expected {CONFIG} in a folder above it")
    content = load_checkpoint(path)
    known = known_of(content, path)
    net = build(known["spec"])
    weights = weights_of(content)
    if problem := bundle.mismatch(net.state_dict(), weights):
        raise ValueError(f"the weights in {path} do not fit their architecture: {problem}")
    net.load_state_dict(weights)
    preprocessing = Preprocessing.from_dict(known["preprocessing"])
    return Trained(
        folder, path, net.eval(), tuple(known["classes"]), preprocessing, _config(folder), record.begun_on(folder)
    )


def _config(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
