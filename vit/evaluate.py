"""Validate, test and predict with a trained model, on the command line or from Python: ``test(["--load", FOLDER])``."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast, final

import numpy as np
from torch import Tensor
from typing_extensions import override

from vit.analysis.classification import scores
from vit.commandline import record, report
from vit.commandline.arguments import take, with_configs
from vit.commandline.options import VitCLI
from vit.commandline.overlays import resolve
from vit.commandline.predictions import Predicted, check_format, included_of, predicted, top_k_of, write
from vit.commandline.quiet import quiet
from vit.commandline.testable import check_classes, check_other, check_splits
from vit.commandline.trained import Trained, open_trained, refuse_other_scale
from vit.data import catalog
from vit.data.labels import require_labels
from vit.data.source import Batch
from vit.files import write_atomically
from vit.layers import pair
from vit.models.pretraining import refuse_pretrained
from vit.models.token_labels import refuse_token_labels
from vit.tasks.answers import Answer, Answers
from vit.tasks.observer import Observer


def validate(args: list[str]) -> dict[str, Any]:
    """Loss and accuracy of ``--load MODEL`` on its validation split; of a pretrained one loss and probes."""
    with quiet():
        cli, _ = _evaluation("validate", args)
        (metrics,) = cli.trainer.validate(cli.model, datamodule=cli.datamodule, verbose=False)
    return dict(metrics)


def test(args: list[str]) -> dict[str, Any]:
    """What ``--load MODEL`` gets right on the test split: `scores`, by class name, and the mean loss.

    Also in test.json, with confusion.png, mistakes.png and report.html beside it. With ``--record FILE`` the result
    joins FILE as one line, with how the model was trained.

    Raises:
        ValueError: anything the user can put right, such as data of other classes than the model's.
    """
    (recorded,), args = take(args, "--record")
    with quiet():
        cli, trained = _evaluation("test", args)
        gathered = Gathered()
        cli.trainer.callbacks.append(gathered)  # type: ignore[attr-defined]
        with cli.logging():
            (metrics,) = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    found = scores(*gathered.all())
    result = {
        **found,
        "classes": dict(zip(trained.classes, found["classes"], strict=True)),
        "loss": metrics["test/loss"],
        "data": cli.datamodule.description.name,
        "manifest_hash": cli.datamodule.manifest_hash,
        "split": "all" if cli.datamodule.whole else "test",
        "weights": "released" if trained.checkpoint is None else trained.checkpoint.name,
    }
    write_atomically(cli.folder / "test.json", lambda part: part.write_text(json.dumps(result, indent=2)))
    report.write(cli.folder)
    if recorded is not None:
        record.append(Path(recorded), trained.folder, "test", result)
    return result


def predict(args: list[str]) -> list[Predicted]:
    """Classes of ``--data.pictures`` by ``--load MODEL``, in their order; written to ``--out`` when given.

    With ``--include logits,embeddings`` FILE has these numbers too, logits in the order of the model's classes. A file
    that cannot be read has an error in place of a class.

    Raises:
        ValueError: an option that is wrong, ``--include`` without ``--out``, or no file that can be read.
    """
    (out, top_k, include), args = take(args, "--out", "--top_k", "--include")
    path = None if out is None else check_format(out)
    included = included_of(include, path)
    with quiet():
        cli, trained = _evaluation("predict", args)
        answers = Answers(trained.net, top_k_of(top_k, len(trained.classes)), included)
        batches = cli.trainer.predict(answers, datamodule=cli.datamodule)
    files = [str(file) for file in cli.datamodule.picture_files]
    found = {place: Predicted(files[place], error=why) for place, why in cli.datamodule.unreadable.items()}
    for answer in batches or []:
        found |= predicted(cast(Answer, answer), files, trained.classes)
    predictions = [found[place] for place in sorted(found)]
    if path is not None:
        write(path, predictions, trained.classes)
    return predictions


@final
class Gathered(Observer):
    """Labels and probabilities of all that was tested."""

    def __init__(self) -> None:
        self.batches: list[tuple[np.ndarray, np.ndarray]] = []

    @override
    def see(self, batch: Batch, logits: Tensor) -> None:
        self.batches.append((batch.labels.cpu().numpy(), logits.softmax(dim=-1).cpu().numpy()))

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) and (n k)."""
        labels, probabilities = (np.concatenate(parts) for parts in zip(*self.batches, strict=True))
        return labels, probabilities


def _evaluation(command: Literal["validate", "test", "predict"], args: list[str]) -> tuple[VitCLI, Trained]:
    """The command's CLI around a trained net: its configuration is not retyped, options given override it."""
    (model,), args = take(args, "--load")
    if model is None:
        raise ValueError(f"vit {command} expects a model: `vit {command} runs/mine`")
    trained = open_trained(model)
    if command != "validate":
        refuse_pretrained(trained.net, trained.folder)
        refuse_token_labels(trained.net, model)
    config = trained.evaluation_config()
    config["data"] = _data(command, config.get("data", {}), args)
    cli = VitCLI(command, [f"--config={resolve('base')}", f"--config={json.dumps(config)}", *with_configs(args)[0]])
    before, now = trained.config.get("data", {}), cli.config.data
    own_data = command == "predict" or all(before.get(key) == now.get(key) for key in ("dataset", "root"))
    own = trained.preprocessing
    size = own.img_size if now.img_size is None else pair(now.img_size)
    values = own.value_range if now.value_range is None else (now.value_range[0], now.value_range[1])
    resized = size != own.img_size
    if values != own.value_range and own_data and command != "predict":
        raise ValueError(
            f"the model was trained on values {own.value_range or 'of the full range'} of these pictures, got "
            f"data.value_range {values}: expected none, or other pictures"
        )
    cli.build(_results_folder(trained, cli.config, own_data, resized))
    if cli.trainer.world_size > 1:  # each process would answer for its part of the pictures
        raise ValueError(
            f"vit {command} runs on one device, got {cli.trainer.world_size}: leave out --trainer.devices, and torchrun"
        )
    cli.model.net = trained.net
    if now.channels is not None and now.channels != own.channels:
        raise ValueError(f"the model takes pictures of {own.channels} channels, got {now.channels}")
    refuse_other_scale(trained, now)
    cli.datamodule.preprocessing = replace(own, img_size=size, value_range=values)
    if command == "test":
        require_labels(cli.datamodule.description, "vit test")
    if command != "predict":
        check_classes(trained.classes, cli.datamodule.classes)
    if command != "predict" and (own_data or trained.manifest_hash == cli.datamodule.manifest_hash):
        check_splits(trained, cli)
    elif command == "test":
        check_other(trained, cli.datamodule)
    return cli, trained


def _data(command: str, data: dict[str, Any], args: list[str]) -> dict[str, Any]:
    """The run's data options, without those that what is asked for makes void.

    Predicting needs no data set; another place is recognised anew, unless its layout is named, too.
    """
    given = {argument.partition("=")[0] for argument in args}
    void = set()
    if command == "predict":
        void = {"dataset", "root", "merge_classes"}
    elif "--data.root" in given and data.get("dataset") in catalog.RECOGNISED:
        void = {"dataset"}
    return {name: value for name, value in data.items() if name not in void}


def _results_folder(trained: Trained, config: Any, own_data: bool, resized: bool) -> Path:
    """The run's folder for its released model on its own data; a folder of its own in there for anything else."""
    data, trainer = config.data, config.trainer
    parts = [] if trained.checkpoint is None else [trained.checkpoint.stem]
    parts += [] if own_data else [Path(data.root).name if data.root else data.dataset]
    parts += ["resized"] if resized else []
    limit = trainer.limit_test_batches
    whole = limit is None or (isinstance(limit, float) and limit == 1.0)  # the integer 1 is one batch
    parts += [] if whole and not trainer.fast_dev_run else ["part"]
    return trained.folder / "-".join(["test", *parts]) if parts else trained.folder
