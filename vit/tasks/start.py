"""Where the weights of a net start: a run, a bundle, a checkpoint, a safetensors file, or timm's by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import safetensors
import safetensors.torch
from torch import Tensor, nn

from vit import bundle
from vit.data.catalog import each_channel
from vit.data.images import Preprocessing
from vit.files import local
from vit.layers import Size, default_patch_size, merged, pair, patch_grid
from vit.models import Loaded, ViT, load_init, load_weights
from vit.models.cnn import timm_config
from vit.models.parts import head_of
from vit.models.pretrained import load_timm_weights
from vit.models.timm_spec import timm_spec
from vit.spec import options, spec
from vit.tasks.checkpoint import BEST, LAST, load_checkpoint

OF_PICTURES = ("img_size", "in_chans", "num_classes", "patch_size")
OF_TRAINING = ("drop", "drop_path", "patch_drop", "proj_drop", "attn_drop", "layer_scale")


class Origin(NamedTuple):
    """What weights were trained as: the spec of their net, and how its pictures were prepared."""

    spec: dict[str, Any]
    img_size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]


@final
@dataclass(frozen=True)
class Source:
    """Weights under our names, or timm's, and what is known of them: the net's spec, its classes and its pictures."""

    name: str
    weights: Mapping[str, Tensor]
    spec: Mapping[str, Any] | None = None
    classes: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None

    @property
    def grid(self) -> Size | None:
        """(rows, columns) of the patches that its positions were made for."""
        args = {} if self.spec is None else self.spec["args"]
        if "backbone" not in args:
            return None
        img_size = pair(_size(args["img_size"]))
        return patch_grid(*img_size, patch_size_of(args))


def begin(net: nn.Module, name: str, classes: Sequence[str], allow: Sequence[str] = ()) -> Loaded:
    """Fill ``net`` with the weights that ``name`` stands for; its head where it was made for the same ``classes``.

    A head of other classes starts new. What the source has beside the net, such as a decoder, is left out.

    Args:
        net: filled in place.
        name: run folder, bundle folder, checkpoint of a run, safetensors file, or ``timm:NAME``.
        classes: of the data, in the order of the logits.
        allow: further parts that may start new (``backbone.norm``) or compute something else than the source's
            (``backbone.block.mixer``, a path of options).

    Raises:
        ValueError: nothing there, or weights that do not fit or belong to another architecture (each is named).
    """
    if name.startswith("timm:"):
        return load_init(net, name, allow)
    source = open_source(name)
    weights = source.weights
    if "patch_embed.proj.weight" in weights and isinstance(net, ViT):
        return load_timm_weights(net, weights, name, None, allow)
    if source.spec is not None:
        _check_architecture(net, source, allow)
    own = {part.partition(".")[0] for part in net.state_dict()}
    skip = [part for part in dict.fromkeys(weight.partition(".")[0] for weight in weights) if part not in own]
    if source.classes is not None and list(source.classes) != list(classes):
        skip += [part for part in head_of(net) if part != "head"]
    return load_weights(net, weights, source.grid, (*head_of(net), *allow), skip, name)


def open_source(name: str) -> Source:
    """Read weights that lie on this machine; nothing is unpickled and nothing fetched.

    Raises:
        ValueError: a URL, or nothing there that can be read.
    """
    path = find(name)
    if path is None:
        raise ValueError(
            f"no weights in {name!r}: expected a run folder, a bundle folder, a .ckpt file of a run, a .safetensors "
            "file or timm:NAME"
        )
    if path.suffix == ".ckpt":
        content = load_checkpoint(path)
        known = known_of(content, path)
        preprocessing = Preprocessing.from_dict(known["preprocessing"])
        return Source(name, weights_of(content), known["spec"], tuple(known["classes"]), preprocessing)
    if path.is_file():
        return _of_file(name, path)
    return _of_bundle(name, path)


def find(name: str) -> Path | None:
    """Where the weights of a model lie: a checkpoint, a safetensors file alone, or the folder of a bundle.

    A run without a bundle, because it was interrupted, gives its best checkpoint. None where nothing is found; a
    checkpoint that was named may not be there.

    Raises:
        ValueError: a URL.
    """
    path = local(name)
    if path.suffix == ".ckpt" or bundle.is_alone(path):
        return path
    folder = bundle.folder_of(path)
    if (folder / bundle.RECORD).is_file():
        return folder
    checkpoints = (folder / "checkpoints" / BEST, folder / "checkpoints" / LAST)
    return next((checkpoint for checkpoint in checkpoints if checkpoint.is_file()), None)


def origin(name: str) -> Origin | None:
    """Of the weights that ``name`` stands for; None of a file that holds weights alone.

    Raises:
        ValueError: nothing there that can be read, or no net of timm.
    """
    if name.startswith("timm:"):
        theirs = timm_config(name.removeprefix("timm:"))
        _, height, width = theirs.input_size
        return Origin(timm_spec(name.removeprefix("timm:")), (height, width), tuple(theirs.mean), tuple(theirs.std))
    source = open_source(name)
    if source.spec is None or source.preprocessing is None:
        return None
    own = source.preprocessing
    return Origin(dict(source.spec), own.img_size, own.mean, own.std)


def other_scale(name: str, own: Preprocessing) -> str | None:
    """A line that tells by which mean and deviation the weights know pictures, where ``own`` has others."""
    known = origin(name)
    theirs = known and [each_channel(values, own.channels) for values in (known.mean, known.std)]
    if theirs in (None, [own.mean, own.std]):
        return None
    return f"  pictures have mean {own.mean} and std {own.std}, the weights know {theirs[0]} and {theirs[1]}"


def patch_size_of(args: Mapping[str, Any]) -> Size:
    """The patch size of a net with these arguments, chosen by the image size where the spec leaves it open."""
    given = args["backbone"].get("args", {}).get("patch_size")
    return default_patch_size(pair(_size(args["img_size"]))) if given is None else pair(_size(given))


def weights_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The net's weights in a checkpoint: the averaged ones, which validation measured, where there are any."""
    average = content["callbacks"].get("EMA", {}).get("weights")
    return of_net(average or content["state_dict"])


def of_net(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A task's weights as its net's."""
    return merged({name.removeprefix("net."): tensor for name, tensor in state.items()})


def known_of(content: Mapping[str, Any], name: str | Path = "the checkpoint") -> dict[str, Any]:
    """What a checkpoint knows of its net, as `Task` wrote it: spec, classes, preprocessing, skipped steps.

    Raises:
        ValueError: another program's checkpoint.
    """
    if "vit" not in content:
        raise ValueError(f"{name} was not written by vit: expected an entry 'vit' with its classes")
    return content["vit"]


def _of_bundle(name: str, path: Path) -> Source:
    model = bundle.load(path, device="cpu")
    return Source(name, model.net.state_dict(), model.meta["spec"], model.classes, model.preprocessing)


def _of_file(name: str, path: Path) -> Source:
    try:
        with safetensors.safe_open(path, "pt") as opened:
            known = opened.metadata() or {}
        if "spec" in known and "classes" in known and "preprocessing" in known:
            return _of_bundle(name, path)
        return Source(name, safetensors.torch.load_file(path))
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error


def _check_architecture(net: nn.Module, source: Source, allow: Sequence[str]) -> None:
    """Two nets of the same shapes may compute differently: by another number of heads, say."""
    assert source.spec is not None
    theirs, ours = _computing(dict(source.spec)), _computing(spec(net))
    differ = [
        f"{path} ({_shown(theirs.get(path))}, here {_shown(ours.get(path))})"
        for path in dict.fromkeys([*theirs, *ours])
        if theirs.get(path) != ours.get(path) and not any(path == part or path.startswith(f"{part}.") for part in allow)
    ]
    if differ:
        rest = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
        raise ValueError(
            f"{source.name} is another architecture than the net: {', '.join(differ[:3])}{rest}; leave the model out "
            "to take its own, or name what may differ with --model.init_allow"
        )


def _computing(tree: dict[str, Any]) -> dict[str, Any]:
    """The options that decide what the backbone computes of its weights, but for those of pictures and of training."""
    return {
        path: value
        for path, value in options(tree).items()
        if path.partition(".")[0] in ("backbone", "name", "width")
        and path.rpartition(".")[2] not in (*OF_PICTURES, *OF_TRAINING)
        and path.split(".")[1:2] not in (["patch_size"], ["img_size"])
    }


def _shown(value: Any) -> str:
    return value.rpartition(".")[2] if isinstance(value, str) else str(value)


def _size(value: int | Sequence[int]) -> int | Size:
    return value if isinstance(value, int) else (value[0], value[1])
