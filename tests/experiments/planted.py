"""Studies with known curves, written as the folder a study leaves."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit.experiments.ledger import fingerprint

HASH = "c0ffee"
TRIALS = [{"lr": lr, "weight_decay": decay} for lr in (1e-4, 3e-4, 1e-3) for decay in (0.05,)]
Row = dict[str, Any]
Accuracy = Callable[[int, int], float]


def study(arms: Sequence[str], sizes: Sequence[int], seeds: Sequence[int]) -> Row:
    """``study.json`` as a study of these writes it."""
    described = [
        {
            "name": name,
            "configs": [f"model/{name}"],
            "options": {"model.net.width": 17},
            "parameters": 190_000 + 7 * place,
            "macs": 11_000_000,
        }
        for place, name in enumerate(arms)
    ]
    return {
        "study": "data-size",
        "version": 1,
        "arms": described,
        "sizes": list(sizes),
        "seeds": list(seeds),
        "budget": "steps",
        "amount": 600,
        "match": "parameters",
        "precision": "32-true",
        "compare_precision": None,
        "tune_size": sizes[0],
        "trials": TRIALS,
        "data": {"name": "planted", "manifest_hash": HASH, "classes": 10, "train": 54_000, "test": 10_000},
    }


def run(arm: str, size: int, seed: int, acc: float, precision: str = "32-true", seconds: float = 90.0) -> Row:
    """A finished run."""
    return {
        "key": f"run-{arm}-{size}-{seed}-{precision}",
        "kind": "run",
        "arm": arm,
        "size": size,
        "seed": seed,
        "precision": precision,
        "trial": None,
        "options": TRIALS[1],
        "status": "done",
        "error": None,
        "acc": acc,
        "val_acc": acc,
        "train_images_per_s": 54_000 / seconds,
        "fit_seconds": seconds,
        "manifest_hash": HASH,
        "commit": "0123456789ab",
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "hardware": {"cpu": "2 x planted", "threads": 1, "gpus": []},
    }


def pretrained(described: Row, arm: str, overlay: str = "pretrain/mae") -> Row:
    """The study with one of its arms pretrained."""
    how = {"pretrain": [overlay], "pretrain_amount": 2000, "pretrain_options": {"model.optimizer.lr": 0.004}}
    arms = [one | how if one["name"] == arm else one for one in described["arms"]]
    return described | {"arms": arms}


def pretrain(arm: str, seed: int, minutes: float) -> Row:
    """A finished pretraining, which has no accuracy."""
    row = run(arm, 54_000, seed, 0.0, seconds=60 * minutes)
    return row | {"key": f"pretrain-{arm}-{seed}", "kind": "pretrain", "options": {}, "acc": None, "val_acc": None}


def tune(arm: str, trial: int, val_acc: float, size: int) -> Row:
    """A finished tuning run."""
    row = run(arm, size, 1000, val_acc)
    return row | {"key": f"tune-{arm}-{trial}", "kind": "tune", "trial": trial, "options": TRIALS[trial], "acc": None}


def failed(arm: str, size: int, seed: int, error: str) -> Row:
    """A failed run, which knows little of itself."""
    key = f"run-{arm}-{size}-{seed}-32-true"
    return {"key": key, "kind": "run", "arm": arm, "size": size, "seed": seed, "status": "failed", "error": error}


def write(folder: Path, described: Row, rows: Sequence[Row]) -> Path:
    """The rows are of this study unless they say otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"study": fingerprint(described), **row} for row in rows]
    (folder / "study.json").write_text(json.dumps(described))
    (folder / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def power_laws(seeds: int = 10, sizes: Sequence[int] = (100, 300, 1000, 3000, 10_000)) -> tuple[Row, list[Row]]:
    """cnn leads on little data and hybrid on much (they cross at 1,000 images); vit is behind both throughout."""
    laws = {"cnn": (1.6, 0.4, 0.02), "hybrid": (1.6 * 1000**0.2, 0.6, 0.02), "vit": (2.3, 0.35, 0.05)}
    rng = np.random.default_rng(3)
    described = study(list(laws), sizes, range(seeds))
    rows = [tune(arm, trial, 0.5 + 0.1 * (trial == 1), sizes[0]) for arm in laws for trial in range(len(TRIALS))]
    for seed in range(seeds):
        for size in sizes:
            shared = rng.normal(0, 0.3 * size**-0.5)
            for place, (arm, (a, b, c)) in enumerate(laws.items()):
                error = min(a * size**-b + c, 0.88) + shared + rng.normal(0, 0.1 * size**-0.5)
                rows.append(run(arm, size, seed, 1 - error, seconds=(90, 150, 120)[place] + size**0.3))
    return described, rows
