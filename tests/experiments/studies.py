"""A study small enough for tests, as `Study` and as YAML."""

from vit.experiments.grid import Arm, Study

YAML = """
candidates:
  vit: {configs: [model/vit_pico]}
  cnn: {configs: [model/resnet_pico], dial: model.init_args.net.init_args.width}
  fixed: {configs: [model/resnet_pico]}
arms: [vit, cnn]
amount: 3
seeds: 1
trials:
  - {lr: 2.0e-3, weight_decay: 0.05}
fit:
  trainer:
    callbacks:
      - class_path: vit.tasks.release.Release
        init_args: {weights: last}
    enable_checkpointing: false
    enable_progress_bar: false
  data: {batch_size: 64, augment: none}
"""


def study(**changes: object) -> Study:
    """Two arms, two sizes, two seeds, two trials."""
    values = {
        "arms": (
            Arm("vit", ("model/vit_pico",), {}, 101, 1009),
            Arm("cnn", ("model/cnn",), {"model.width": 0.5}, 103, 1013),
        ),
        "sizes": (30, 100),
        "seeds": (0, 1),
        "budget": "steps",
        "amount": 40,
        "match": "parameters",
        "precision": "32-true",
        "compare_precision": None,
        "tune_size": 30,
        "trials": ({"lr": 1e-3, "weight_decay": 0.05}, {"lr": 3e-3, "weight_decay": 0.1}),
        "fit": {},
        "configs": (),
        "recipes": {"vit": "12", "cnn": "34"},
        "data": {"name": "digits", "manifest_hash": "ab", "classes": 10, "train": 1295, "validation": 143, "test": 359},
        "batch_size": 16,
    }
    return Study(**{**values, **changes})  # pyright: ignore[reportArgumentType]
