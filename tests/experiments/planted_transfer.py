"""Transfer studies with known numbers, written as the folder a study leaves."""

from typing import Any

from tests.experiments.planted import HASH, Row

SHIFTS = (-0.02, -0.01, 0.0, 0.01, 0.02, 0.03)
"""Of all rows of a seed: what pairing takes away."""


def entry(row: str, target: str = "planted", origin: str | None = None, steps: int = 40) -> Row:
    own = {"name": f"{target}.{row}", "row": row, "target": target, "origin": origin, "steps": steps}
    return {**own, "parameters": 101, "macs": 1009}


def study(entries: list[Row], seeds: int = 6) -> Row:
    """``study.json`` of these rows, pretrained as they ask for."""
    names = dict.fromkeys(entry["origin"] for entry in entries if entry["origin"])
    origins = [
        {"name": name, "method": name.partition("@")[0], "source": name.partition("@")[2], "batch_size": 64}
        for name in names
    ]
    data = {"classes": 10, "train": 640, "validation": 60, "test": 100}
    sets = {entry["target"] for entry in entries} | {origin["source"] for origin in origins}
    return {
        "study": "transfer",
        "version": 1,
        "host": ["model/host"],
        "methods": {"mae": ["pretrain/mae"], "supervised": []},
        "refused": [{"target": "planted", "row": "supervised@planted", "reason": "<b>own labels</b>"}],
        "sets": {name: {"name": name, "manifest_hash": f"{HASH} {name}", **data} for name in sorted(sets)},
        "img_size": [28, 28],
        "channels": 1,
        "labels": 600,
        "seeds": list(range(seeds)),
        "amount": 40,
        "pretrain_amount": 100,
        "trials": [{"lr": 0.001}, {"lr": 0.01}],
        "precision": "32-true",
        "arms": [*entries, *origins],
    }


def run(entry: Row, seed: int, acc: float, probe: float | None = None) -> Row:
    """A finished finetuning."""
    probes = None if probe is None else {"kNN": probe - 0.1, "ridge": probe, "logistic": probe + SHIFTS[seed]}
    settings = {"options": {"lr": 0.01}, "probe": probes, "acc": acc, "val_acc": acc}
    return _row("run", entry["name"], seed, 120.0) | settings


def pretrain(origin: str, seed: int) -> Row:
    """A finished pretraining."""
    return _row("pretrain", origin, seed, 600.0)


def failed(entry: Row, seed: int) -> Row:
    return {"key": f"run-{entry['name']}-{seed}", "kind": "run", "arm": entry["name"], "seed": seed} | {
        "status": "failed",
        "error": "<script>alert(1)</script>",
    }


def _row(kind: str, arm: str, seed: int, seconds: float) -> dict[str, Any]:
    return {
        "key": f"{kind}-{arm}-{seed}",
        "kind": kind,
        "arm": arm,
        "seed": seed,
        "precision": "32-true",
        "trial": None,
        "status": "done",
        "error": None,
        "fit_seconds": seconds,
        "commit": "0123456789ab",
        "versions": {"python": "3.11.7"},
        "hardware": {"cpu": "2 x planted", "threads": 1, "gpus": []},
    }
