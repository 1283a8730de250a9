"""`vit explain`: what a trained model looks at, one picture of its attention per picture given."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
from matplotlib.figure import Figure

from vit.analysis.plots import overlay
from vit.analysis.rollout import rollout_map
from vit.bundle import Model
from vit.commandline.trained import open_trained
from vit.data.folder import expand
from vit.data.images import Picture
from vit.files import write_atomically
from vit.models.pretraining import refuse_pretrained

CAVEAT = "the same whatever the answer; ignores values and MLPs"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; prints the path of each picture it writes.

    Raises:
        ValueError: no model or pictures there, an unreadable picture, or a model without attention.
    """
    parser = _Parser(
        prog="vit explain",
        allow_abbrev=False,
        description="Draw which patches a trained model reads (attention rollout) over each picture. Of more than "
        "three channels the first three are drawn, as red, green and blue; of two their mean.",
        epilog="Rollout follows attention through all layers. It is one map whatever the answer, and ignores values "
        "and MLPs: a hint where to look, not a proof of why.",
    )
    parser.add_argument("model", metavar="MODEL", help="a run folder, bundle folder or .ckpt of a run")
    parser.add_argument("pictures", metavar="PICTURES", nargs="+", help="picture files, folders or patterns")
    parser.add_argument("--out", metavar="DIR", help="where the pictures go (default: MODEL/explain)")
    arguments = parser.parse_args(argv)

    pictures = expand(arguments.pictures)
    trained = open_trained(arguments.model)
    refuse_pretrained(trained.net, trained.folder)
    out = Path(arguments.out) if arguments.out else trained.folder / "explain"
    for path in explain(trained.model(), pictures, out):
        print(path)
    return 0


class _Parser(argparse.ArgumentParser):
    """argparse, with errors like those of the other commands."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; expected vit explain MODEL PICTURES [--out DIR]")


def explain(model: Model, pictures: Sequence[str | Path], out: str | Path) -> list[Path]:
    """Write ``out/<stem>-rollout.png`` for each picture and return the paths in order.

    Pictures of the same stem are numbered in order: ``x-rollout.png``, ``x-2-rollout.png``. All pictures are read
    before the first is drawn, and a file is written whole or not at all.

    Raises:
        ValueError: an unreadable picture, or a model without attention.
    """
    sources = [Path(picture) for picture in pictures]
    targets = [Path(out) / f"{name}-rollout.png" for name in _unique([source.stem for source in sources])]
    pixels = [model.preprocessing.pixels(source) for source in sources]
    for source, picture, target in zip(sources, pixels, targets, strict=True):
        figure = rollout_figure(model, picture, source.name)
        write_atomically(target, lambda part, figure=figure: figure.savefig(part, format="png"))
    return targets


def rollout_figure(model: Model, picture: Picture, name: str = "") -> Figure:
    """The picture as the model sees it beside its attention rollout; the title has the likeliest answers.

    Args:
        model: a loaded bundle.
        picture: a path, a PIL picture or an array.
        name: of the picture, for the small print.

    Raises:
        ValueError: an unreadable picture, or a model without attention.
    """
    pixels = model.preprocessing.pixels(picture)
    images = model.preprocessing.normalise(torch.from_numpy(pixels[None]))
    seen = rollout_map(model.net, images.to(next(model.net.parameters()).device))
    answers = model.predict(pixels, top_k=min(3, len(model.classes)))[0].probabilities
    title = ", ".join(f"{label} {probability:.1%}" for label, probability in answers.items())
    facts = (name, f"attention rollout read at: {seen.reading}", *seen.notes, CAVEAT)
    return overlay(pixels, seen.heat[0].cpu(), title, " · ".join(filter(None, facts)))


def _unique(stems: list[str]) -> list[str]:
    """Each stem, numbered where it would overwrite an earlier one; file systems may not tell upper from lower case."""
    names: list[str] = []
    taken: set[str] = set()
    for stem in stems:
        name, count = stem, 1
        while name.casefold() in taken:
            count += 1
            name = f"{stem}-{count}"
        taken.add(name.casefold())
        names.append(name)
    return names
