"""LightningCLI as `vit` uses it: one command's options, links from data to net, and defaults of this machine."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Literal, final, get_args

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from typing_extensions import override

from vit.commandline import secrets, stack
from vit.commandline.arguments import NET
from vit.commandline.errors import one_line
from vit.data.catalog import describe
from vit.data.module import Images
from vit.environment import environment
from vit.tasks.metrics import MetricsCSV
from vit.tasks.places import without_places
from vit.tasks.wandb import Wandb

Command = Literal["fit", "validate", "test", "predict"]
USAGE = {
    "fit": "vit fit -c NAME [-c NAME ...] [--run DIR | --resume DIR] [options]",
    "validate": "vit validate MODEL [options]",
    "test": "vit test MODEL [options]",
    "predict": "vit predict MODEL PICTURES [--out FILE] [--include logits,embeddings] [--top_k N] [options]",
}
DESCRIBED_BY = ("data.dataset", "data.root", "data.img_size", "data.channels", "data.merge_classes")
IMPORTABLE = ["vit", "lightning.pytorch", "torch.nn", "torch.optim"]
OUR_OPTIONS = {
    "fit": {
        "run": "folder for all that the run leaves (default: runs/<time>-<name>)",
        "resume": "folder of an interrupted run to continue",
    },
    "validate": {"load": "run folder, bundle folder, .safetensors of vit export, or .ckpt of a run"},
    "test": {
        "load": "run folder, bundle folder, .safetensors of vit export, or .ckpt of a run",
        "record": "append the result and how the model was trained to this .jsonl file",
    },
    "predict": {
        "load": "run folder, bundle folder, .safetensors of vit export, or .ckpt of a run",
        "out": "file for the predictions, .csv or .json (default: only a table on the terminal)",
        "include": "logits (in the order of the model's classes), embeddings (what its last linear map sees), or both: "
        "further columns of --out, or lists in .json",
        "top_k": "how many classes to list for each picture (default: 3)",
    },
}
"""Options that decide what is parsed or where results go; `vit.run` takes them, no config can set them."""

# A config may come from anyone: what it names is checked before it is imported. Final classes are replaceable parts.
set_parsing_settings(
    import_path_denylist=["*"],
    import_path_allowlist=IMPORTABLE,
    subclasses_enabled=["is_final_class", "is_pure_dataclass"],
)


@final
class VitCLI(LightningCLI):
    """One command's options, parsed; `build` makes model, data and trainer of them, and running these is the caller's.

    Args:
        command: decides which options there are.
        args: command line without `OUR_OPTIONS`, configs as ``--config=PATH``.

    Raises:
        ValueError: one line saying which option is wrong, what was expected and what came.
    """

    def __init__(self, command: Command, args: list[str]) -> None:
        self.command = command
        super().__init__(
            LightningModule,
            Images,
            save_config_callback=None,
            parser_kwargs={
                "prog": f"vit {command}",
                "usage": USAGE[command],
                "description": "\n".join(f"--{name}: {text}" for name, text in OUR_OPTIONS[command].items()),
                "exit_on_error": False,
                "allow_abbrev": False,
            },
            subclass_mode_model=True,
            args=args,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @override
    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--seed_everything", type=int, default=0, help="Seed of all that is random.")

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        integers_first(parser)
        parser.link_arguments("seed_everything", "data.seed")
        if self.command == "fit":
            for name, compute in (("num_classes", _num_classes), ("in_chans", _in_chans), ("img_size", _img_size)):
                parser.link_arguments(DESCRIBED_BY, f"{NET}.{name}", compute_fn=compute)

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        if self.command == "fit":
            stack.refuse_disorder(args)
        try:
            self.config = parser.parse_args(args)
        except (ArgumentError, ValueError) as error:
            raise ValueError(one_line(error, self._known_options())) from error
        if self.command == "fit":  # the others keep no configuration
            secrets.refuse(self.config.as_dict(), os.environ)
            stack.refuse_lost(args, self.config.model.as_dict())

    @override
    def instantiate_classes(self) -> None:
        """Not in the constructor: where results go may depend on what was parsed."""

    def build(self, folder: Path) -> None:
        """Make ``model``, ``datamodule`` and ``trainer``; all they write goes below ``folder``.

        Raises:
            ValueError: a part refuses its arguments.
        """
        self.folder = folder
        if self.config.trainer.default_root_dir is not None:
            raise ValueError("trainer.default_root_dir: results go to the folder that --run names, set that instead")
        config = self.config.clone()
        loggers = config.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if isinstance(logger, Namespace) and "save_dir" in logger.init_args:
                logger.init_args.save_dir = str(folder)
        try:
            self.config_init = self.parser.instantiate(config)
            self.datamodule, self.model = self.config_init.data, self.config_init.model
            self.trainer = self.instantiate_trainer()
        except (ArgumentError, MisconfigurationException, ModuleNotFoundError, ValueError) as error:
            raise ValueError(one_line(error)) from error

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """With what YAML cannot say: the folder, the metrics table, the accelerator and precision of this machine."""
        trainer = self.config_init.trainer
        accelerator = choose_accelerator(trainer.accelerator)
        return super().instantiate_trainer(
            accelerator=accelerator,
            precision=trainer.precision or default_precision(accelerator),
            default_root_dir=str(self.folder),
            logger=self._loggers(trainer.logger),
            **kwargs,
        )

    def saved_config(self) -> str:
        """The whole configuration as YAML: ``vit fit -c`` on it repeats the run."""
        config = self.config.clone()
        config.pop("config", None)
        return self.parser.dump(config, skip_unset=False)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Hand a fit's configuration, without places, to loggers that keep one, and end them: a command may follow."""
        for logger in self.trainer.loggers if self.command == "fit" else []:
            config = without_places(yaml.safe_load(self.saved_config()))
            logger.log_hyperparams({**config, "environment": environment()})
        try:
            yield
        finally:
            for logger in self.trainer.loggers:
                if isinstance(logger, Wandb):
                    logger.finish()

    def _loggers(self, configured: Logger | Iterable[Logger] | bool | None) -> list[Logger]:
        chosen = [configured] if isinstance(configured, Logger) else []
        if isinstance(configured, Iterable):
            chosen = list(configured)
        table = [MetricsCSV(str(self.folder))] if self.command == "fit" else []
        return [*table, *chosen] if self.command in ("fit", "test") else []

    def _known_options(self) -> list[str]:
        parsed = [option.lstrip("-") for action in self.parser._actions for option in action.option_strings]
        return [*parsed, *OUR_OPTIONS[self.command]]


def integers_first(parser: ArgumentParser) -> None:
    """Let every option that is a number or a share read 1 as the number.

    Types are tried in order, and typing keeps one object for unions that differ in order only: whichever package was
    imported first decides whether ``int | float`` reads 1 as 1.0, all of it.
    """
    for action in parser._actions:
        hint = getattr(action, "_typehint", None)
        if {int, float} <= set(get_args(hint)):
            members = [member for member in get_args(hint) if member is not int]
            members.insert(members.index(float), int)
            action._typehint = reduce(or_, members)  # pyright: ignore[reportAttributeAccessIssue]


def choose_accelerator(asked: Any) -> Any:
    """``auto`` is CUDA where there is one, else the CPU; Apple's MPS is used only when asked for, and said."""
    if asked == "mps":
        print("running on Apple's MPS, as asked: not all of torch works there, and results differ from the CPU's")
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked


def default_precision(accelerator: str) -> str:
    """bf16 where the device computes in it, 32 bits elsewhere: on CPUs bf16 is slower, or emulated."""
    on_cuda = accelerator in ("cuda", "gpu") and torch.cuda.is_available()
    return "bf16-mixed" if on_cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"


def _num_classes(*data: Any) -> int:
    return len(describe(*data).classes)


def _in_chans(*data: Any) -> int:
    return describe(*data).channels


def _img_size(*data: Any) -> tuple[int, int]:
    return describe(*data).img_size
