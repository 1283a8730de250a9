"""A model that knows itself: weights, architecture, classes, preprocessing and record in one folder.

``model.safetensors`` holds the weights; ``model.json`` everything else and the SHA-256 of the weights, which loading
verifies. A run folder is a bundle. Nothing in it is code, and nothing is fetched: a bundle is a local folder, or the
one file that `vit.export` makes of it.
"""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

import vit
from vit.data.images import Picture, Preprocessing
from vit.data.listing import shown
from vit.files import commit, local, part_of, sha256, write_atomically, write_part
from vit.meta import checked
from vit.models import CNN, ViT
from vit.models.pretraining import refuse_pretrained
from vit.spec import build, spec

WEIGHTS, RECORD = "model.safetensors", "model.json"


@final
@dataclass(frozen=True)
class Prediction:
    """The likeliest class of a picture, and the probabilities of classes, largest first."""

    label: str
    probability: float
    probabilities: dict[str, float]


@final
@dataclass(frozen=True)
class Model:
    """A net in eval mode with what it takes to use it; ``meta`` is the whole of ``model.json``."""

    net: nn.Module
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    meta: dict[str, Any]

    @torch.inference_mode()
    def predict(
        self, pictures: Picture | Sequence[Picture], top_k: int | None = None, batch_size: int = 64
    ) -> list[Prediction]:
        """One prediction per picture, in order; a single picture gives a list of one.

        Args:
            pictures: a PIL image, an array (h w) or (h w c), a path, or a sequence of these.
            top_k: how many probabilities each prediction keeps, None for all.
            batch_size: pictures per forward pass.

        Raises:
            ValueError: ``top_k`` is not in 1..k, a picture cannot be read, or the net was only pretrained.
        """
        refuse_pretrained(self.net, "RUN")
        if top_k is not None and not 1 <= top_k <= len(self.classes):
            raise ValueError(f"top_k must be in 1..{len(self.classes)}, got {top_k}")
        predictions = []
        for images in self._batches(pictures, batch_size):
            probabilities = self.net(images).float().softmax(dim=-1).cpu()
            predictions += [self._prediction(row, top_k) for row in probabilities]
        return predictions

    @torch.inference_mode()
    def embed(self, pictures: Picture | Sequence[Picture], batch_size: int = 64) -> Tensor:
        """What the net's last linear map sees of each picture (n d), in order and on the CPU; pictures as in `predict`.

        Raises:
            ValueError: there is no picture, or one cannot be read.
        """
        net = cast(ViT | CNN, self.net)
        # copies: the features may be a view that would keep all tokens
        parts = [net.features(images).float().cpu().clone() for images in self._batches(pictures, batch_size)]
        if not parts:
            raise ValueError("nothing to embed: expected pictures, got none")
        return torch.cat(parts)

    def _batches(self, pictures: Picture | Sequence[Picture], batch_size: int) -> Iterator[Tensor]:
        """Images (b c h w) on the net's device."""
        given = [pictures] if isinstance(pictures, Picture) else list(pictures)
        device = next(self.net.parameters()).device
        for start in range(0, len(given), batch_size):
            images = [self.preprocessing(picture) for picture in given[start : start + batch_size]]
            yield torch.stack(images).to(device)

    def _prediction(self, probabilities: Tensor, top_k: int | None) -> Prediction:
        values, order = probabilities.sort(descending=True, stable=True)
        ranked = {self.classes[place]: value for place, value in zip(order.tolist(), values.tolist(), strict=True)}
        best = self.classes[int(order[0])]
        return Prediction(best, ranked[best], dict(list(ranked.items())[:top_k]))


def save(
    folder: str | Path,
    net: nn.Module,
    *,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    metrics: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    licence: str = "not stated",
) -> None:
    """Write ``net`` as a bundle: both files become the new ones at once, or neither does.

    Args:
        classes: names in the order of the logits.
        metrics: results, with what they were measured on.
        config: the training run's configuration.
        data: the training data's name and manifest hash; no paths.
        licence: licence of the weights.

    Raises:
        ValueError: ``net`` keeps no spec (see `vit.spec`).
    """
    weights, record = Path(folder) / WEIGHTS, Path(folder) / RECORD
    architecture, tensors = spec(net), tensors_of(net)
    write_part(weights, lambda part: part.write_bytes(safetensors.torch.save(tensors)))  # save_file makes it private
    meta = {
        "format": 1,
        "weights_sha256": sha256(part_of(weights)),
        "spec": architecture,
        "classes": list(classes),
        "preprocessing": preprocessing.to_dict(),
        "metrics": dict(metrics or {}),
        "config": dict(config or {}),
        "data": dict(data or {}),
        "licence": licence,
        "versions": {"vit": vit.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    write_part(record, lambda part: part.write_text(json.dumps(meta, indent=2)))
    # from here on the new bundle is whole: `_read` finishes a save that is cut short between these two
    commit(weights)
    commit(record)


def add_metrics(folder: str | Path, metrics: Mapping[str, Any]) -> None:
    """Add or replace entries of a bundle's metrics."""
    meta = _read(Path(folder))
    meta["metrics"] |= metrics
    write_atomically(Path(folder) / RECORD, lambda part: part.write_text(json.dumps(meta, indent=2)))


def load(path: str | Path, device: str = "auto") -> Model:
    """The model of a bundle folder, ready to predict.

    Args:
        path: the folder, one of its two files, or a safetensors file of `vit.export`. URLs are refused: download
            first, so that you know what you run.
        device: where the net goes; ``auto`` is CUDA where there is one, else the CPU.

    Raises:
        ValueError: no bundle there, a damaged one, or one of an architecture this version does not have.
    """
    file = local(path)
    alone = is_alone(file)
    file = file if alone else _whole(folder_of(file)) / WEIGHTS
    try:
        meta = _metadata(file) if alone else _read(file.parent)
        weights = safetensors.torch.load_file(file)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{file} is not a safetensors file: {error}") from error
    net = build(meta["spec"])
    if problem := mismatch(net.state_dict(), weights):
        raise ValueError(f"the weights in {file} do not fit their architecture: {problem}")
    net.load_state_dict(weights)
    classes, preprocessing = checked(meta, net.eval(), file.with_name(RECORD) if file.name == WEIGHTS else file)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Model(net.to(device), classes, preprocessing, meta)


def is_alone(path: Path) -> bool:
    """Whether ``path`` is a safetensors file without a record beside it."""
    return path.suffix == ".safetensors" and path.is_file() and not path.with_name(RECORD).is_file()


def folder_of(path: Path) -> Path:
    """The bundle's folder, where ``path`` is one of its two files; ``path`` itself otherwise."""
    return path.parent if path.name in (WEIGHTS, RECORD) else path


def tensors_of(net: nn.Module) -> dict[str, Tensor]:
    """The net's weights as copies: safetensors refuses tensors that share memory, as tied weights do."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in net.state_dict().items()}


def mismatch(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """How two state dicts differ in names and shapes, in one line naming the first few; None when they fit."""
    shapes = [
        f"{name} is {tuple(given[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    findings = {
        "missing": [name for name in expected if name not in given],
        "unexpected": [name for name in given if name not in expected],
        "wrong shape": shapes,
    }
    return "; ".join(f"{kind}: {shown(names, 3)}" for kind, names in findings.items() if names) or None


def _whole(folder: Path) -> Path:
    absent = [name for name in (WEIGHTS, RECORD) if not (folder / name).is_file()]
    if absent:
        raise ValueError(f"no model in {folder}: expected {WEIGHTS} and {RECORD}, missing {' and '.join(absent)}")
    return folder


def _read(folder: Path) -> dict[str, Any]:
    """The record that belongs to the weights there; the part of one when a save was cut short between its files."""
    weights_sha256 = sha256(folder / WEIGHTS)
    for record in (folder / RECORD, part_of(folder / RECORD)):
        meta = _parse(record) if record.is_file() else {}
        if meta.get("weights_sha256") == weights_sha256:
            return meta
    raise ValueError(f"{folder / WEIGHTS} is damaged or not the file {RECORD} was written for: its SHA-256 differs")


def _parse(record: Path) -> dict[str, Any]:
    try:
        meta = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{record} is not valid JSON: {error}") from error
    needed = {"weights_sha256", "spec", "classes", "preprocessing", "metrics"}
    if not isinstance(meta, dict) or not needed <= meta.keys():
        raise ValueError(f"{record} is not a model's record: expected an object with {', '.join(sorted(needed))}")
    return meta


def _metadata(file: Path) -> dict[str, Any]:
    """The record that one file carries in its head."""
    with safetensors.safe_open(file, "pt") as opened:
        written = opened.metadata() or {}
    if not {"spec", "classes", "preprocessing"} <= written.keys():
        raise ValueError(f"{file} holds weights alone: expected {RECORD} beside it, or a file of `vit export`")
    return {name: json.loads(value) for name, value in written.items()}
