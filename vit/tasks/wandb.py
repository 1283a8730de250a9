"""Weights & Biases without questions: online where there are a key and a network, offline otherwise."""

import importlib.util
import netrc
import os
import secrets
import socket
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final
from urllib.parse import urlparse

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from typing_extensions import override

STEP = "trainer/global_step"
"""The x axis of every chart, under the name Lightning's own wandb logger gives it."""


@final
class Wandb(Logger):
    """Losses, metrics, learning rate, configuration and pictures, in ``<save_dir>/wandb``.

    The run's id lies in that folder too, so that a resumed run continues its charts. `WANDB_MODE` overrides the choice
    between online and offline; an offline run is uploaded later by ``wandb sync``.

    Args:
        save_dir: the run folder.
        project: wandb project.
        name: shown name of the run, None for the run folder's.
        log_bundle: upload the model bundle as an artifact when training ends.

    Raises:
        ValueError: wandb is not installed.
    """

    def __init__(
        self, save_dir: str = ".", project: str = "vit", name: str | None = None, log_bundle: bool = False
    ) -> None:
        super().__init__()
        if importlib.util.find_spec("wandb") is None:
            raise ValueError("logging to wandb needs the package wandb: pip install wandb")
        self._folder = Path(save_dir).resolve()
        self.project, self.run_name, self._log_bundle = project, name or self._folder.name, log_bundle
        self._experiment: Any = None

    @property
    @override
    def name(self) -> str:
        return self.project

    @property
    @override
    def version(self) -> str:
        return self._run_id()

    @property
    @override
    def save_dir(self) -> str:
        return str(self._folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The wandb run, begun at first use; on other processes than the first a dummy."""
        if self._experiment is None:
            self._experiment = self._begin()
        return self._experiment

    @override
    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The configuration, as plain nested data; an empty one (Lightning's default) is not logged."""
        values = vars(params) if isinstance(params, Namespace) else params
        if values:
            self.experiment.config.update(values, allow_val_change=True)

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.experiment.log({**metrics, STEP: step})

    @rank_zero_only
    def log_picture(self, key: str, picture: Image.Image, step: int) -> None:
        """A picture under ``key``."""
        import wandb

        self.experiment.log({key: wandb.Image(picture), STEP: step})

    @rank_zero_only
    def log_bundle(self, folder: Path) -> None:
        """The bundle's two files as an artifact of type model, if asked for."""
        import wandb

        if self._log_bundle:
            artifact = wandb.Artifact(f"model-{self._run_id()}", type="model")
            for name in ("model.safetensors", "model.json"):
                artifact.add_file(str(folder / name))
            self.experiment.log_artifact(artifact)

    @rank_zero_only
    def finish(self) -> None:
        """End the wandb run; without this it ends with the process, so that a test can follow a fit."""
        if self._experiment is not None:
            self._experiment.finish()
            self._experiment = None

    def _begin(self) -> Any:
        import wandb

        mode = os.environ.get("WANDB_MODE") or ("online" if _reachable() else "offline")
        if mode == "online" and not _has_key():
            mode = "offline"  # wandb would ask for a login
        run = wandb.init(
            project=self.project,
            name=self.run_name,
            dir=str(self._folder),
            id=self._run_id(),
            resume="allow" if mode == "online" else None,  # offline it has no meaning and wandb says so
            reinit="create_new",
            mode=mode,  # type: ignore[arg-type]
            # its own record of the machine has the command line in it, and with it where the data lie
            settings=wandb.Settings(silent=True, console="off", x_disable_meta=True),
        )
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        upload = "wandb sync " + os.path.relpath(self._folder / "wandb" / "offline-run-*")
        print(f"wandb: {run.url or mode}" + (f"; upload later with `{upload}`" if mode == "offline" else ""))
        return run

    def _run_id(self) -> str:
        path = self._folder / "wandb" / "run_id"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(secrets.token_hex(4))
        return path.read_text()


def _host() -> str:
    return urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or "api.wandb.ai"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(_host()) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _reachable() -> bool:
    try:
        with socket.create_connection((_host(), 443), timeout=3):
            return True
    except OSError:
        return False
