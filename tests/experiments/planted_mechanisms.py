"""Mechanisms studies with known numbers, written as the folder a study leaves."""

from collections.abc import Sequence
from typing import Any

from tests.experiments.planted import HASH, Row

SIDE = 32


def arm(overlay: str, patch: int, widened: bool = False, parameters: int = 1000) -> Row:
    tokens = (SIDE // patch) ** 2
    name = f"{overlay.replace('/', '.')}@{tokens}{'-wide' if widened else ''}"
    own = {"name": name, "overlay": overlay, "patch": patch, "tokens": tokens, "widened": widened}
    return {**own, "configs": ["model/host", overlay], "options": {}, "parameters": parameters, "macs": 5000}


def study(arms: Sequence[Row], seeds: int, patch: Sequence[int] = (4,), timed: Sequence[int] = ()) -> Row:
    """``study.json`` as a study of these writes it, attention/softmax being the reference."""
    return {
        "study": "mechanisms",
        "version": 1,
        "arms": list(arms),
        "seeds": list(range(seeds)),
        "budget": "steps",
        "amount": 300,
        "precision": "32-true",
        "fit": {},
        "configs": [],
        "recipes": {},
        "data": {"name": "planted", "manifest_hash": HASH, "classes": 10, "train": 54_000, "test": 10_000},
        "batch_size": 64,
        "train_size": 54_000,
        "vary": "mixer",
        "host": ["model/host"],
        "reference": "attention/softmax",
        "patch": list(patch),
        "timed_patch": list(timed),
        "timed_batch": 32,
        "embed_dim": 96,
        "refused": [{"overlay": "mixer/gmlp", "patch": 1, "tokens": 1024, "reason": "<b>too many</b> parameters"}],
    }


def run(arm: Row, seed: int, acc: float) -> Row:
    """A finished run."""
    return _row("run", arm, seed) | {"acc": acc, "val_acc": acc}


def time(arm: Row, images_per_s: float, memory: int) -> Row:
    """A finished timing."""
    factor = None if arm["overlay"] == "attention/softmax" and not arm["widened"] else [1.5, 1.25, 1.75]
    speeds = {"train_images_per_s": images_per_s, "infer_images_per_s": 3 * images_per_s}
    factors = {"train_times_as_fast": factor, "infer_times_as_fast": factor}
    where = {"memory_bytes": memory, "memory": "tensors kept", "timed_batch": 32, "device": "cpu"}
    return _row("time", arm, 0) | speeds | factors | where


def failed(arm: Row, seed: int, error: str) -> Row:
    """A failed run, which knows little of itself."""
    return {"key": f"run-{arm['name']}-{seed}", "kind": "run", "arm": arm["name"], "seed": seed} | {
        "status": "failed",
        "error": error,
    }


def _row(kind: str, arm: Row, seed: int) -> dict[str, Any]:
    return {
        "key": f"{kind}-{arm['name']}-{seed}",
        "kind": kind,
        "arm": arm["name"],
        "size": 54_000,
        "seed": seed,
        "precision": "32-true",
        "trial": None,
        "status": "done",
        "error": None,
        "commit": "0123456789ab",
        "versions": {"python": "3.11.7"},
        "hardware": {"cpu": "2 x planted", "threads": 1, "gpus": []},
    }
