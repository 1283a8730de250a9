"""Pictures of many bands from arrays to an exported file: a net of five channels, and one of seven begun with it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import vit
from tests.helpers import TINY, untyped
from vit import evaluate, run
from vit.bundle import Model
from vit.export import export
from vit.layers import adapt_channels

RNG = np.random.default_rng(0)


def saved(path: Path, channels: int) -> Path:
    """Two classes that the last channel alone tells apart."""
    labels = np.arange(40) % 2
    images = RNG.integers(0, 256, (40, 8, 8, channels), dtype=np.uint8)
    images[..., -1] = 200 * labels[:, None, None]
    np.savez(path, train_images=images, train_labels=labels, test_images=images[:6], test_labels=labels[:6])
    return path


def logits(model: Model, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.net(images)


def test_five_channels_are_trained_taken_over_by_seven_exported_and_predicted(tmp_path: Path) -> None:
    five, seven = tmp_path / "five", tmp_path / "seven"
    run.fit([*TINY, "--data.root", str(saved(tmp_path / "five.npz", 5)), "--run", str(five)])
    start = ["-c", "finetune", "--model.init_from", str(five), "--model.optimizer.lr=1e-12"]
    few = ["--trainer.max_epochs=1", "--data.augment=none", "--data.root", str(saved(tmp_path / "seven.npz", 7))]
    run.fit([*start, *few, "--run", str(seven)])
    first, second = vit.load(five, "cpu"), vit.load(seven, "cpu")
    assert (first.preprocessing.channels, second.preprocessing.channels) == (5, 7)
    before, after = first.net.state_dict(), second.net.state_dict()
    name = "backbone.patch_embed.proj.weight"
    assert_close(after.pop(name), adapt_channels(before.pop(name), 7))
    assert_close(after, before)

    picture, other = tmp_path / "picture.npy", tmp_path / "other.npy"
    np.save(picture, RNG.integers(0, 256, (8, 8, 5), dtype=np.uint8))
    np.save(other, RNG.integers(0, 256, (8, 8, 7), dtype=np.uint8))
    told, refused = evaluate.predict(["--load", str(five), "--data.pictures", f"[{picture},{other}]"])
    (expected,) = first.predict(picture)
    assert (told.label, told.probability) == (expected.label, pytest.approx(expected.probability, abs=1e-6))
    assert "expected an array of 5 channels, got 7" in refused.error

    images = torch.randn(3, 5, 8, 8)
    with untyped():
        export(first, "torch-export", tmp_path / "model.pt2")
        program = torch.export.load(tmp_path / "model.pt2").module()
        assert_close(program(images), logits(first, images), rtol=0, atol=1e-5)
        if importlib.util.find_spec("onnxruntime") is None:
            return
        import onnxruntime

        export(second, "onnx", tmp_path / "model.onnx")
    session, images = onnxruntime.InferenceSession(tmp_path / "model.onnx"), torch.randn(3, 7, 8, 8)
    assert session.get_inputs()[0].shape[1:] == [7, 8, 8]
    (came,) = session.run(["logits"], {"images": images.numpy()})
    assert_close(torch.from_numpy(came), logits(second, images), rtol=0, atol=1e-5)
