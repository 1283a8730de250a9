"""The model card says what model.json knows, and that it does not know the rest."""

from functools import partial
from pathlib import Path

import pytest
import torch

from vit import bundle
from vit.card import CARD, MARK, write_card
from vit.data.images import Preprocessing
from vit.layers import Block, ConformerBlock, MeanPool, SelfAttention
from vit.layers.heads import Head
from vit.models import CNN, Backbone, ViT

PREPROCESSING = Preprocessing((8, 12), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
METRICS = {"best": {"val/acc": 0.98765, "epoch": 7}, "test": {"acc": 0.9, "acc_95": [0.85, 0.94], "n": 1234}}
DATA = {"name": "my_photos", "manifest_hash": "abc123", "num_train": 5678}


def hybrid() -> ViT:
    mixer = partial(SelfAttention, num_heads=2)
    blocks = {"early": [(partial(ConformerBlock, mixer=mixer), 1)], "block": partial(Block, mixer=mixer)}
    backbone = partial(Backbone, patch_size=4, embed_dim=8, depth=3, prefix=(), **blocks)
    return ViT((8, 12), 3, 2, backbone, partial(Head, pool=MeanPool))


def card_of(folder: Path, net: torch.nn.Module, classes: tuple[str, ...] = ("cat", "dog"), **known: object) -> str:
    bundle.save(folder, net, classes=classes, preprocessing=PREPROCESSING, **known)
    write_card(folder)
    return (folder / CARD).read_text(encoding="utf-8")


def test_says_what_the_model_is_and_how_it_did(tmp_path: Path) -> None:
    net = hybrid()
    text = card_of(tmp_path, net, metrics=METRICS, data=DATA, licence="CC-BY-4.0")
    assert text.startswith(f"{MARK}\n# ViT for my\\_photos\n")
    assert "A ViT of 8 channels on patches of 4x4 pixels, blocks: 1 of ConformerBlock and 2 of Block" in text
    assert f"{sum(p.numel() for p in net.parameters()):,} parameters" in text
    assert "Trained on: my\\_photos, 5,678 pictures, manifest `abc123`." in text
    assert "In the order of the logits: cat, dog." in text
    assert "scaled (bicubic) until it covers 8x12 pixels" in text and "minus 0.5, 0.4, 0.3, over 0.2, 0.3, 0.4" in text
    assert "| best | val/acc | 0.9877 |  |\n| best | epoch | 7 |  |\n| test | acc | 0.9 | 0.85 to 0.94 |" in text
    assert "| test | n | 1,234 |  |" in text and "acc_95" not in text
    meta = bundle.load(tmp_path, "cpu").meta
    for known in ("Licence of the weights: CC-BY-4.0.", meta["weights_sha256"], f"vit {meta['versions']['vit']}"):
        assert known in text


@pytest.mark.parametrize(("channels", "words"), [(1, "grey"), (4, "RGB and alpha"), (7, "7 channels")])
def test_says_what_pictures_it_takes(tmp_path: Path, channels: int, words: str) -> None:
    given = Preprocessing((8, 8), channels, (0.5,) * channels, (0.5,) * channels)
    bundle.save(tmp_path, CNN(8, channels, 2, width=0.1), classes=("cat", "dog"), preprocessing=given)
    write_card(tmp_path)
    assert f"Turned upright, {words}, values of more than 8 bits" in (tmp_path / CARD).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value_range", "words"),
    [(None, "of 16 bits 0 to 65535, of floats 0 to 1"), ((-1000.0, 4095), "-1000 to 4095"), ((0, 0.25), "0 to 0.25")],
)
def test_says_which_values_become_black_and_white(
    tmp_path: Path, value_range: tuple[float, float] | None, words: str
) -> None:
    given = Preprocessing((8, 8), 1, (0.5,), (0.5,), value_range)
    bundle.save(tmp_path, CNN(8, 1, 2, width=0.1), classes=("cat", "dog"), preprocessing=given)
    write_card(tmp_path)
    text = (tmp_path / CARD).read_text(encoding="utf-8")
    assert f"grey, values of more than 8 bits brought to 0 to 255 ({words}), scaled" in text
    assert "the centre cut out, divided by 255; minus 0.5, over 0.5." in text


def test_says_what_nobody_stated(tmp_path: Path) -> None:
    text = card_of(tmp_path, CNN(8, 3, 60, width=0.1), tuple(f"class {i}" for i in range(60)))
    assert "# CNN for pictures" in text and "timm's resnet18 with a stem for small pictures" in text
    assert "Trained on: not stated." in text and "Not measured." in text
    assert "class 49 and 10 more, all in model.json." in text
    assert "Licence of the weights: not stated." in text


def test_names_mean_nothing_to_markdown(tmp_path: Path) -> None:
    text = card_of(tmp_path, hybrid(), ("a|b\n# c", "<b>`x`"), data={"name": "[x](y)"})
    assert "logits: a\\|b \\# c, \\<b\\>\\`x\\`." in text
    assert "# ViT for \\[x\\](y)" in text


def test_is_written_anew_until_somebody_makes_it_theirs(tmp_path: Path) -> None:
    assert "| test |" not in card_of(tmp_path, hybrid())
    bundle.add_metrics(tmp_path, {"test": METRICS["test"]})
    write_card(tmp_path)
    assert "| test | acc | 0.9 | 0.85 to 0.94 |" in (tmp_path / CARD).read_text(encoding="utf-8")
    (tmp_path / CARD).write_text("# My notes")
    write_card(tmp_path)
    assert (tmp_path / CARD).read_text() == "# My notes"
    assert bundle.load(tmp_path, "cpu").classes == ("cat", "dog")


def test_needs_a_whole_bundle(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model in"):
        write_card(tmp_path)
    assert not (tmp_path / CARD).exists()
