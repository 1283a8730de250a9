"""A real ViT and real digits, small enough for seconds: 6 batches an epoch, the last of them ragged in validation."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from vit.data.module import Images
from vit.layers import Block, SelfAttention
from vit.models.backbone import Backbone
from vit.models.vit import ViT
from vit.tasks.checkpoint import Checkpoints
from vit.tasks.ema import EMA

BATCHES = 6


@pytest.fixture
def tiny_net() -> ViT:
    block = partial(Block, mixer=partial(SelfAttention, num_heads=2))
    return ViT(8, 1, 10, backbone=partial(Backbone, patch_size=4, embed_dim=16, depth=2, block=block, drop_path=0.3))


@pytest.fixture
def digits() -> Images:
    return Images("digits", batch_size=16, augment="light", seed=3)


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., L.Trainer]:
    """A quiet trainer on the CPU; keywords override."""

    def make(run: Path = tmp_path, **options: Any) -> L.Trainer:
        defaults: dict[str, Any] = {
            "default_root_dir": run,
            "accelerator": "cpu",
            "max_epochs": 2,
            "limit_train_batches": BATCHES,
            "num_sanity_val_steps": 0,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "logger": False,
            "callbacks": [EMA(0.9), Checkpoints()],
        }
        return L.Trainer(**{**defaults, **options})

    return make
