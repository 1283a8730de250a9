"""How a run was made, kept in its folder, and the line that a recorded result is."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vit import bundle
from vit.commandline.overlays import packaged_names
from vit.data.module import Images
from vit.data.prints import Prints, joined
from vit.environment import environment
from vit.files import extend, listed, write_atomically
from vit.tasks.places import PLACES, told_without_places, without_places

SITTINGS, DATA, SEEN = "fit.json", "data.json", "seen.npz"
_PATHS = ("-c", "--config", "--run", "--resume", "--load", "--record")


def add_sitting(folder: Path, command: str, seed: int, seconds: float, waited: float, steps: int) -> None:
    """Note in the run folder what trained there, how long, how much of that it waited for data, and to which step.

    A resumed run has several such sittings.
    """
    sitting = {"command": command, "seed": seed, "seconds": round(seconds, 1), "waited": round(waited, 3)}
    sitting |= {"steps": steps}
    sitting |= environment()
    extend(folder / SITTINGS, [sitting])


def steps_recorded(folder: Path) -> int | None:
    """The step at which the last sitting ended; None where there was none, or it does not say."""
    sittings = listed(folder / SITTINGS)
    return sittings[-1].get("steps") if sittings else None


def keep_data(folder: Path, data: Images) -> None:
    """Note in the run folder what it is trained on, before it is.

    The prints of its pictures to train and to validate on stay there, and are in no bundle: whoever has a picture could
    tell from them that it was used.

    Raises:
        ValueError: a run that is resumed was begun on other data, or on another subset of them.
    """
    now = {
        "name": data.description.name,
        "manifest_hash": data.manifest_hash,
        "subset": data.subset and hashlib.sha256(data.nested_order.tobytes()).hexdigest(),
    }
    before = now | _kept(folder)
    for what, key in ((f"the data {now['name']!r}", "manifest_hash"), (f"the subset {data.subset}", "subset")):
        if before[key] != now[key]:
            raise ValueError(
                f"{what} changed since {folder} was begun: manifest {str(before[key])[:12]}, now {str(now[key])[:12]};"
                " put the data back as it was, or start another run"
            )
    write_atomically(folder / DATA, lambda part: part.write_text(json.dumps(now, indent=2), encoding="utf-8"))
    prints = data.identity.prints
    if used := [prints[split] for split in ("train", "val") if split in prints]:
        write_atomically(folder / SEEN, lambda part: _save(part, joined(used)))


def seen_by(folder: Path) -> Prints | None:
    """Prints of the pictures that the run in a folder trained and validated on; None where it does not say."""
    path = folder / SEEN
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as held:
        (kind,) = held.files
        return Prints(kind, held[kind])


def _save(path: Path, prints: Prints) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{prints.kind: np.unique(prints.values)})


def begun_on(folder: Path) -> str | None:
    """Manifest hash of the data that the run in a folder began on; None where it does not say."""
    return _kept(folder).get("manifest_hash")


def _kept(folder: Path) -> dict[str, Any]:
    path = folder / DATA
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def append(path: Path, folder: Path, kind: str, result: dict[str, Any]) -> None:
    """Append one line of JSON to ``path``: a result of this kind, what trained the model, and its configuration.

    Raises:
        ValueError: the folder does not say how its model was trained.
    """
    if not listed(folder / SITTINGS) or not (folder / bundle.RECORD).is_file():
        raise ValueError(f"{folder} lacks {SITTINGS} or {bundle.RECORD}: expected a finished run, to record its making")
    path.parent.mkdir(parents=True, exist_ok=True)
    config = json.loads((folder / bundle.RECORD).read_text(encoding="utf-8"))["config"]
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"fit": listed(folder / SITTINGS), kind: result, "config": config}) + "\n")


def shown(command: str, args: list[str]) -> str:
    """``vit COMMAND ARGS`` without the places on this machine: a record names data by its hash."""
    words, place = ["vit", command], False
    for argument in args:
        if place:  # which the option before announced
            words.append(_without_place(argument))
            place = False
            continue
        flag, equals, value = argument.partition("=")
        names_place = flag in _PATHS or (flag.startswith("--") and flag.rpartition(".")[2] in PLACES)
        told = _without_place if names_place else _told
        words.append(f"{flag}={told(value)}" if equals else _told(argument))
        place = names_place and not equals
    return " ".join(words)


def _without_place(value: str) -> str:
    """A packaged config or a name such as timm:vit_tiny_patch16_224 stays, a path becomes dots."""
    return value if value in packaged_names() or value.startswith("timm:") else "..."


def _told(value: str) -> str:
    """A value without the places in it, which are those of nested options, or a file of them."""
    if Path(value).suffix in {".json", ".yaml", ".yml"}:
        return _without_place(value)
    try:
        options = yaml.safe_load(value)
    except yaml.YAMLError:
        return told_without_places(value)
    if not isinstance(options, dict | list) or (shown := without_places(options)) == options:
        return told_without_places(value)
    return json.dumps(shown)
