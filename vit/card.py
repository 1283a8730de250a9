"""A bundle's model card: a README.md beside its two files, for whoever receives the model."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from vit import bundle
from vit.bundle import Model
from vit.data.images import Preprocessing
from vit.files import write_atomically
from vit.models import CNN, Pretraining, ViT

CARD = "README.md"
MARK = "<!-- vit writes this file anew from model.json; take out this line and the file is yours -->"
COLOURS = {1: "grey", 3: "RGB", 4: "RGB and alpha"}
NAMED = 50
"""Classes that are listed by name."""

TEXT = """\
{mark}
# {title}

{architecture}, {parameters:,} parameters. It gives every picture one of {k} classes. Trained on: {data}.

## Use

```python
import vit

model = vit.load("this/folder")
model.predict("picture.jpg")[0].label
```

or `vit predict this/folder pictures/`. Loading runs no code from this folder. `vit export this/folder --format onnx`
(or torch-export, timm, safetensors) makes a file for other programs.

## Classes

In the order of the logits: {classes}.

## Preprocessing

{preprocessing}

## Results

{results}

## Not tested

- Pictures from elsewhere than the training data's source: another camera, place, time or way of choosing them.
- Pictures of none of the classes: the answer is one of them all the same.
- Whether a probability of 0.9 is right nine times in ten.
- Single groups of people, places or devices; pictures altered on purpose to mislead.

## Licence and origin

Licence of the weights: {licence}. Made with {versions}. SHA-256 of model.safetensors:
`{sha256}`
"""

PRETRAINED = """\
{mark}
# {title}

{architecture}, {parameters:,} parameters, pretrained without labels. It gives every picture a vector, not a class.
Pretrained on: {data}.

## Use

`vit fit -c finetune --model.init_from this/folder --data.root pictures/` makes a classifier of it. Its vectors:

```python
import vit

vit.load("this/folder").embed(["picture.jpg"])
```

Loading runs no code from this folder.

## Preprocessing

{preprocessing}

## Results

{results}

## Not tested

- Pictures from elsewhere than the pretraining data's source: another camera, place, time or way of choosing them.
- Whatever it will be finetuned for.

## Licence and origin

Licence of the weights: {licence}. Made with {versions}. SHA-256 of model.safetensors:
`{sha256}`
"""


def write_card(folder: str | Path) -> None:
    """Write the card of the bundle in ``folder``; one that somebody has made their own stays as it is.

    Raises:
        ValueError: no bundle there, or a damaged one.
    """
    path = Path(folder) / CARD
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return
    text = card(bundle.load(folder, device="cpu"))
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def card(model: Model) -> str:
    """What the model is, knows, was measured on and was not, as Markdown."""
    meta = model.meta
    versions = (f"{name} {version}" for name, version in meta.get("versions", {}).items())
    named = ", ".join(_plain(name) for name in model.classes[:NAMED])
    rest = len(model.classes) - NAMED
    data = meta.get("data", {})
    text = PRETRAINED if isinstance(model.net, Pretraining) else TEXT
    return text.format(
        mark=MARK,
        title=f"{type(model.net).__name__} for {_plain(data.get('name') or 'pictures')}",
        architecture=_architecture(model.net),
        parameters=sum(parameter.numel() for parameter in model.net.parameters()),
        k=len(model.classes),
        data=_data(data),
        classes=named + (f" and {rest} more, all in model.json" if rest > 0 else ""),
        preprocessing=_preprocessing(model.preprocessing),
        results=_results(meta.get("metrics", {})),
        licence=_plain(meta.get("licence") or "not stated"),
        versions=", ".join(versions) or "versions not stated",
        sha256=meta.get("weights_sha256", "not stated"),
    )


def _architecture(net: nn.Module) -> str:
    if isinstance(net, CNN):
        stem = " with a stem for small pictures" if net.small_stem else ""
        return f"A convolutional net, timm's {net.name}{stem}"
    if not isinstance(net, ViT | Pretraining):
        return f"A {type(net).__name__}"
    backbone, kind = net.backbone, "A ViT" if isinstance(net, ViT) else f"{type(net).__name__} around a ViT"
    encoder = backbone.encoder
    kinds = [type(block).__name__ for block in encoder.layers]
    blocks = " and ".join(f"{kinds.count(kind)} of {kind}" for kind in dict.fromkeys(kinds))
    blocks += " (sharing weights)" if len(encoder.blocks) < len(encoder.layers) else ""
    height, width = backbone.patch_size
    return f"{kind} of {backbone.embed_dim} channels on patches of {height}x{width} pixels, blocks: {blocks or 'none'}"


def _data(data: Mapping[str, Any]) -> str:
    if not data.get("name"):
        return "not stated"
    count = f", {data['num_train']:,} pictures" if "num_train" in data else ""
    return f"{_plain(data['name'])}{count}, manifest `{data.get('manifest_hash') or 'not stated'}`"


def _preprocessing(given: Preprocessing) -> str:
    height, width = given.img_size
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (given.mean, given.std))
    colours = COLOURS.get(given.channels, f"{given.channels} channels")
    wider = "of 16 bits 0 to 65535, of floats 0 to 1"
    if given.value_range is not None:
        wider = "{:g} to {:g}".format(*given.value_range)
    return (
        f"Turned upright, {colours}, values of more than 8 bits brought to 0 to 255 ({wider}), scaled (bicubic) until "
        f"it covers {height}x{width} pixels, the centre cut out, divided by 255; minus {mean}, over {std}. `predict` "
        "does this; an exported file wants it done."
    )


def _results(metrics: Mapping[str, Any]) -> str:
    rows = [f"| {_plain(split)} | {row}" for split, values in metrics.items() for row in _rows(values)]
    if not rows:
        return "Not measured."
    head = ["| measured | metric | value | 95 % interval |", "|---|---|---|---|"]
    note = (
        "Only the rows `test` are of pictures that took no part in training, or in choosing the weights and settings."
    )
    return "\n".join([*head, *rows, "", note])


def _rows(values: Any) -> Iterator[str]:
    """A metric per row, with its interval where ``metric_95`` holds one; what is no number stays in model.json."""
    values = values if isinstance(values, Mapping) else {"": values}
    for name, value in values.items():
        if isinstance(value, int | float):
            shown = f"{value:.4g}" if isinstance(value, float) else f"{value:,}"
            interval = values.get(f"{name}_95")
            yield f"{_plain(name)} | {shown} | {f'{interval[0]:.4g} to {interval[1]:.4g}' if interval else ''} |"


def _plain(text: str) -> str:
    """The text on one line, with no meaning to Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>#|~$&])", r"\\\1", " ".join(str(text).split()))
