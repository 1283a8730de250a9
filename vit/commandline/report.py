"""A run on one page that opens without a network: what it reached, what it got wrong, and how it was made."""

import base64
import json
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from vit import bundle
from vit.commandline.record import SITTINGS
from vit.commandline.runfolder import CONFIG
from vit.files import write_atomically
from vit.models import AIM, MAE, SimMIM
from vit.tasks.places import without_places
from vit.tasks.skipped import SKIPPED

PAGE = "report.html"
PRETRAINING = {f"{net.__module__}.{net.__qualname__}" for net in (AIM, MAE, SimMIM)}
PICTURES = {
    "samples.png": "Some of the training pictures",
    "curves.png": "Loss and accuracy while training",
    "confusion.png": "True classes (rows) and what they were taken for",
    "reconstructions.png": "Validation pictures, what was left of them, and with the predicted patches put in",
    "mistakes.png": "The surest mistakes: the true class, what it was taken for, and the probability of that",
}


def write(folder: Path) -> Path:
    """Write ``report.html`` from what lies in a run's folder, finished or not; the path of the page.

    A part that is not there is left out. Everything from the records is escaped, pictures are inside the page.
    """
    source = resources.files("vit.commandline").joinpath("report.html.j2").read_text(encoding="utf-8")
    words = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    words.filters |= {"percent": _percent}
    text = words.from_string(source).render(
        name=folder.resolve().name,
        test=_json(folder / "test.json"),
        model=_model(folder),
        pretraining=PRETRAINING,
        sittings=_json(folder / SITTINGS) or [],
        skipped=_json(folder / SKIPPED) or [],
        pictures=[(_embedded(folder / name), text) for name, text in PICTURES.items() if (folder / name).is_file()],
        config=_config(folder / CONFIG) if (folder / CONFIG).is_file() else "",
    )
    write_atomically(folder / PAGE, lambda part: part.write_text(text, encoding="utf-8"))
    return folder / PAGE


def _model(folder: Path) -> dict[str, Any]:
    """What the bundle says of itself, but for its parts."""
    record = _json(folder / bundle.RECORD) or {}
    kept = ("classes", "preprocessing", "data", "metrics")
    return {name: record.get(name) or {} for name in kept} | {"class": record.get("spec", {}).get("class", "")}


def _config(path: Path) -> str:
    """The page may be given away, the run's folder knows where its data lie."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return yaml.safe_dump(without_places(config), sort_keys=False, allow_unicode=True)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _embedded(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _percent(share: float | None, interval: tuple[float, float] | None = None) -> str:
    if share is None:
        return "-"
    between = f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    return f"{100 * share:.1f} %{between}"
