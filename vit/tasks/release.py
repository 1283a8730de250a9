"""The run's model as a bundle: its last or best weights with what it takes to use them."""

from pathlib import Path
from typing import Any, Literal, cast, final

import lightning as L
import safetensors
import safetensors.torch
import torch
import yaml
from torch import Tensor, nn
from typing_extensions import override

from vit import bundle
from vit.analysis.statistics import wilson
from vit.card import write_card
from vit.data import catalog
from vit.data.order import Loader
from vit.layers import merged
from vit.spec import build, spec
from vit.tasks.checkpoint import Checkpoints, is_smoke_run, load_checkpoint, validated
from vit.tasks.classify import Classification
from vit.tasks.ema import EMA
from vit.tasks.places import without_places
from vit.tasks.start import of_net, weights_of
from vit.tasks.task import Task
from vit.tasks.wandb import Wandb


@final
class Release(L.Callback):
    """Writes ``model.safetensors``, ``model.json`` and a model card when training ends; a test adds its metrics.

    The weights are the averaged ones where `EMA` is on. What was measured of the same weights before stays.

    Args:
        weights: ``last``, or ``best`` by validation, which early stopping wants: a schedule that ends near zero has its
            best weights at the end, and a few hundred validation images cannot tell (on 143 digits, ``best`` cost 0.3
            to 3.6 points of test accuracy, see results/).
        licence: licence of the weights, for whoever receives the bundle.
    """

    def __init__(self, weights: Literal["best", "last"] = "last", licence: str = "not stated") -> None:
        self.weights, self.licence = weights, licence

    @override
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero or is_smoke_run(trainer):
            return
        assert isinstance(pl_module, Task)
        data, folder = trainer.datamodule, Path(trainer.default_root_dir)  # type: ignore[attr-defined]
        weights, metrics = _best(trainer, pl_module) if self.weights == "best" else _last(trainer, pl_module)
        net = build(spec(pl_module.net))
        net.load_state_dict(weights)
        bundle.save(
            folder,
            net,
            classes=data.classes,
            preprocessing=data.preprocessing,
            metrics={**_measured_before(folder, net), **metrics},
            config=_config(folder),
            data={"name": data.description.name, "manifest_hash": data.manifest_hash, "num_train": data.num_train},
            licence=self.licence,
        )
        write_card(folder)
        for logger in trainer.loggers:
            if isinstance(logger, Wandb):
                logger.log_bundle(folder)

    @override
    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before `EMA` takes its weights out again. Other weights than the bundle's, or part of the test, add none."""
        assert isinstance(pl_module, Task)
        folder, loader = Path(trainer.default_root_dir), cast(Loader, trainer.test_dataloaders)
        whole = sum(trainer.num_test_batches) == len(loader) and not is_smoke_run(trainer)
        if not trainer.is_global_zero or not whole or not _holds(folder, pl_module.net):
            return
        accuracy, n = float(trainer.callback_metrics["test/acc"]), len(loader.plan.index)
        result = {"acc": accuracy, "loss": float(trainer.callback_metrics["test/loss"]), "n": n}
        bundle.add_metrics(folder, {"test": {**result, "acc_95": wilson(round(accuracy * n), n)}})
        write_card(folder)


def _best(trainer: L.Trainer, pl_module: Task) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The net's weights at the best validation and what it measured; the newest ones of a run without validation."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    keeper = next((callback for callback in callbacks if isinstance(callback, Checkpoints)), None)
    if keeper is None or not keeper.best_model_path:
        return _last(trainer, pl_module)
    checkpoint = load_checkpoint(keeper.best_model_path)
    measured = _with_interval(pl_module, {keeper.monitor: keeper.best_score}, keeper.best_of)
    metrics = {**measured, "step": keeper.best_step, "epoch": checkpoint["epoch"]}
    return weights_of(checkpoint), {"best": metrics}


def _last(trainer: L.Trainer, pl_module: Task) -> tuple[dict[str, Tensor], dict[str, Any]]:
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    average = next((callback.weights for callback in callbacks if isinstance(callback, EMA)), {})
    measured = {
        name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(("val/", "probe/"))
    }
    known = _with_interval(pl_module, measured, validated(trainer) if measured else None)
    metrics = {"last": {**known, "step": trainer.global_step}} if measured else {}
    return of_net(average or pl_module.state_dict()), metrics


def _with_interval(task: Task, measured: dict[str, Any], n: int | None) -> dict[str, Any]:
    """With the interval of ``val/acc`` of ``n`` pictures, where it is a share of pictures: patches of one are alike."""
    if n is None or "val/acc" not in measured or not isinstance(task, Classification):
        return measured
    return {**measured, "val/acc_95": wilson(round(measured["val/acc"] * n), n), "val/n": n}


def _config(folder: Path) -> dict[str, Any]:
    """The run's configuration. A bundle is given away: local paths stay behind, and whoever tests it names the data."""
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    data = config.get("data") or {}
    if data.get("root") is not None:
        data |= {"dataset": catalog.resolve(data.get("dataset"), data["root"]), "root": None}
    return without_places(config)


def _measured_before(folder: Path, net: nn.Module) -> dict[str, Any]:
    """What the bundle there says was measured of these weights; nothing of others, or of a damaged one."""
    try:
        return bundle.load(folder, device="cpu").meta["metrics"] if _holds(folder, net) else {}
    except (OSError, ValueError, safetensors.SafetensorError):
        return {}


def _holds(folder: Path, net: nn.Module) -> bool:
    if not (folder / bundle.RECORD).is_file():
        return False
    stored, own = safetensors.torch.load_file(folder / bundle.WEIGHTS), merged(net.state_dict())
    return bundle.mismatch(own, stored) is None and all(torch.equal(own[name].cpu(), stored[name]) for name in own)
