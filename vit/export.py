"""`vit export`: a model in a form that others run, checked against the model before anything is written."""

import argparse
import importlib.util
import io
import json
import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, final

import safetensors.torch
import torch
from torch import Tensor

from vit import bundle
from vit.bundle import Model
from vit.files import commit, part_of, write_atomically
from vit.models import ViT, to_timm
from vit.models.pretraining import refuse_pretrained
from vit.models.timm_args import timm_args
from vit.spec import build, spec

Format = Literal["onnx", "torch-export", "timm", "safetensors"]
TOLERANCE = 1e-4
BATCHES = (1, 3)
ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
ONNX_BYTES = 2**31 - 1
"""A protobuf message holds no more."""


class Exported(NamedTuple):
    """What will be written, by path inside the target ("" is the target itself), and those bytes at work."""

    files: dict[str, bytes]
    run: Callable[[Tensor], Tensor]


def main(args: Sequence[str]) -> int:
    """The command; prints where the export lies and how far its logits are from the model's.

    Raises:
        ValueError: no bundle there, a form that this model has not, an export that exists or differs too much.
    """
    parser = _Parser(
        prog="vit export",
        allow_abbrev=False,
        description="Write a trained model in a form that others run, checked against the model on random pictures.",
        epilog="Every form takes any number of normalised pictures at once and carries the classes and the "
        "preprocessing: as ONNX metadata, as model.json inside the torch.export file, in timm's config.json, or in the "
        "head of the safetensors file, which vit.load opens.",
    )
    parser.add_argument("model", metavar="MODEL", help="a run folder or bundle folder")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--out", metavar="PATH", help="the file, a folder for timm (default: in MODEL/export)")
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="largest difference of a logit (%(default)s)"
    )
    arguments = parser.parse_args(args)
    model = bundle.load(arguments.model, device="cpu")
    given = Path(arguments.model)
    folder = given.parent if given.is_file() else given
    refuse_pretrained(model.net, folder)
    out = Path(arguments.out) if arguments.out else folder / "export" / FORMATS[arguments.format].name
    difference = export(model, arguments.format, out, arguments.tolerance)
    batches = " and ".join(map(str, BATCHES))
    print(f"{out}: max |difference| of the logits {difference:.2g} on {batches} random pictures")
    return 0


@final
class _Parser(argparse.ArgumentParser):
    """argparse, with errors like those of the other commands."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; expected vit export MODEL --format {'|'.join(FORMATS)} [--out PATH]")


def export(model: Model, form: Format, out: str | Path, tolerance: float = TOLERANCE) -> float:
    """Write ``model`` to ``out``, whole or not at all; the largest difference of a logit from the model's.

    Args:
        model: a loaded bundle; it stays as it is.
        form: ``onnx``, ``torch-export``, ``safetensors`` (one file each) or ``timm`` (a folder).
        out: where nothing lies yet.
        tolerance: difference above which nothing is written.

    Raises:
        ValueError: ``out`` exists, ``form`` cannot hold the model, or the difference is above ``tolerance``.
    """
    out = Path(out)
    if out.exists():
        raise ValueError(f"{out} exists and an export overwrites nothing: remove it or name another with --out")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
    model = replace(model, net=deepcopy(model.net).to(memory_format=torch.contiguous_format).cpu().float().eval())
    with torch.no_grad():
        exported = FORMATS[form].make(model)
        difference = _largest_difference(model, exported.run)
    if not difference <= tolerance:
        raise ValueError(f"{form} gives other logits: max |difference| {difference:.2g}, tolerance {tolerance:g}")
    _write(out, exported.files)
    return difference


def _largest_difference(model: Model, run: Callable[[Tensor], Tensor]) -> float:
    """max |run(images) - net(images)| on random pictures, alone and together."""
    (height, width), channels = model.preprocessing.img_size, model.preprocessing.channels
    random, found = torch.Generator().manual_seed(0), []
    for batch in BATCHES:
        shape = (batch, height, width, channels)
        images = model.preprocessing.normalise(torch.randint(256, shape, dtype=torch.uint8, generator=random))
        expected, came = model.net(images), run(images)
        if came.shape != expected.shape:
            raise ValueError(f"expected logits of shape {tuple(expected.shape)}, the export gave {tuple(came.shape)}")
        found.append((came - expected).abs().max())
    return float(torch.stack(found).max())


def _write(out: Path, files: dict[str, bytes]) -> None:
    part = part_of(out)
    try:
        for name, content in files.items():
            write_atomically(part / name, lambda file, content=content: file.write_bytes(content))
        commit(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _onnx(model: Model) -> Exported:
    """Inputs ``images`` (batch c h w), normalised; output ``logits`` (batch k)."""
    absent = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise ValueError(f"exporting to ONNX needs {', '.join(absent)}: pip install {' '.join(ONNX_PACKAGES)}")
    import onnx
    import onnxruntime

    size = sum(tensor.nbytes for tensor in model.net.state_dict().values())
    if size > ONNX_BYTES:
        raise ValueError(f"an ONNX file holds at most {ONNX_BYTES / 1e9:.1f} GB, the model has {size / 1e9:.1f}")
    made = torch.onnx.export(
        _program(model), input_names=["images"], output_names=["logits"], dynamo=True, verbose=False
    )
    assert made is not None
    proto = made.model_proto
    onnx.helper.set_model_props(proto, _known(model))
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return Exported({"": content}, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]))


def _torch_export(model: Model) -> Exported:
    """For ``torch.export.load(path, extra_files={"model.json": ""})``."""
    file, known = io.BytesIO(), {name: json.loads(value) for name, value in _known(model).items()}
    torch.export.save(_program(model), file, extra_files={bundle.RECORD: json.dumps(known)})
    return Exported({"": file.getvalue()}, torch.export.load(io.BytesIO(file.getvalue())).module())


def _timm(model: Model) -> Exported:
    """For ``timm.create_model("local-dir:PATH", pretrained=True)``."""
    import timm

    if not isinstance(model.net, ViT):
        raise ValueError(f"the form timm is for plain ViTs, the model is a {type(model.net).__name__}")
    content = safetensors.torch.save(to_timm(model.net), _known(model))
    architecture, args = timm_args(model.net)
    net, weights = timm.create_model(architecture, **args), safetensors.torch.load(content)
    if problem := bundle.mismatch(net.state_dict(), weights):
        raise ValueError(f"timm's {architecture} cannot take these weights: {problem}")
    net.load_state_dict(weights)
    config = {"architecture": architecture, "num_classes": len(model.classes), "label_names": list(model.classes)}
    config |= {"model_args": args, "pretrained_cfg": _timm_data(model)}
    return Exported({"model.safetensors": content, "config.json": json.dumps(config, indent=2).encode()}, net.eval())


def _timm_data(model: Model) -> dict[str, Any]:
    """Our preprocessing in timm's words."""
    given = model.preprocessing
    cover = {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center", "fixed_input_size": True}
    return {
        "input_size": [given.channels, *given.img_size],
        **cover,
        "mean": list(given.mean),
        "std": list(given.std),
        "num_classes": len(model.classes),
        "label_names": list(model.classes),
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": model.meta.get("licence"),
    }


def _safetensors(model: Model) -> Exported:
    """For `vit.load`: the bundle as one file."""
    known = _known(model)
    content = safetensors.torch.save(bundle.tensors_of(model.net), known)
    net = build(json.loads(known["spec"]))
    net.load_state_dict(safetensors.torch.load(content))
    return Exported({"": content}, net.eval())


def _program(model: Model) -> torch.export.ExportedProgram:
    """The net as a graph over any number of images.

    Raises:
        ValueError: a part of the net that depends on the number of images, or cannot be traced.
    """
    given = model.preprocessing
    images = torch.zeros(2, given.channels, *given.img_size)  # of 1 it would take the number for a constant
    shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
    try:
        return torch.export.export(model.net, (images,), dynamic_shapes=shapes)
    except Exception as error:  # torch's own share no base class
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"torch cannot export this {type(model.net).__name__}: {reason}") from error


def _known(model: Model) -> dict[str, str]:
    """All the bundle says of itself, as JSON by name."""
    own = {"spec": spec(model.net), "classes": list(model.classes), "preprocessing": model.preprocessing.to_dict()}
    return {name: json.dumps(value) for name, value in {**model.meta, **own}.items()}


class _Form(NamedTuple):
    """Name of the file or folder unless told, and what makes it."""

    name: str
    make: Callable[[Model], Exported]


FORMATS: dict[Format, _Form] = {
    "onnx": _Form("model.onnx", _onnx),
    "torch-export": _Form("model.pt2", _torch_export),
    "timm": _Form("timm", _timm),
    "safetensors": _Form("model.safetensors", _safetensors),
}
