"""`vit explain` from a saved model to pictures, and what it says when it cannot."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from torch.testing import assert_close

from tests.analysis.nets import small_vit
from tests.helpers import redrawn
from vit import bundle
from vit.analysis.plots.canvas import printable
from vit.analysis.rollout import rollout_map
from vit.data.images import Preprocessing
from vit.explain import explain, main, rollout_figure
from vit.layers import ConformerBlock, ConvModule, ConvStem, Head, Identity, MeanPool, Mlp, NoPositions, SelfAttention
from vit.layers.block import Block
from vit.models import Backbone, ViT

CLASSES = ("ant", "bee $x$", "猫", "dog")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return _saved(tmp_path / "model", small_vit(("cls", "reg")).float())


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return _picture(tmp_path / "photos" / "a" / "x.png")


def test_writes_a_picture_for_each_and_prints_the_paths(model: Path, picture: Path, tmp_path: Path, capsys):
    _picture(tmp_path / "photos" / "b" / "x.png", seed=1)
    _picture(tmp_path / "photos" / "b" / "X.jpg", seed=2)
    assert main([str(model), str(tmp_path / "photos"), "--out", str(tmp_path / "out")]) == 0
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name.casefold() for path in written] == ["x-2-rollout.png", "x-3-rollout.png", "x-rollout.png"]
    assert sorted(capsys.readouterr().out.split()) == [str(path) for path in written]
    for path in written:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert min(image.size) > 300


def test_pictures_go_beside_the_model_unless_told(model: Path, picture: Path):
    main([str(model), str(picture)])
    main([str(model / "model.json"), str(picture)])
    assert [path.name for path in (model / "explain").iterdir()] == ["x-rollout.png"]


def test_the_figure_shows_what_the_model_saw_answered_and_read(model: Path, picture: Path):
    loaded = bundle.load(model, device="cpu")
    figure = rollout_figure(loaded, picture, "x.png")
    seen, under = figure.axes[:2]
    pixels = loaded.preprocessing.pixels(picture)
    np.testing.assert_allclose(seen.images[0].get_array(), pixels / 255)
    heat = rollout_map(loaded.net, loaded.preprocessing(picture)[None]).heat[0]
    assert_close(torch.as_tensor(np.array(under.images[1].get_array())), (heat / heat.mean()).double())
    answers = loaded.predict(picture, top_k=3)[0].probabilities.items()
    title = ", ".join(f"{printable(label)} {probability:.1%}" for label, probability in answers)
    assert " ".join(figure.get_suptitle().split()) == title
    caption = " ".join(figure.get_supxlabel().split())
    assert caption.startswith("x.png · attention rollout read at: class token · ")
    assert "ignores values and MLPs" in caption


def test_says_when_the_mean_is_read_and_when_blocks_have_no_attention(tmp_path: Path, picture: Path):
    mean = rollout_figure(bundle.load(_saved(tmp_path / "mean", small_vit((), MeanPool).float())), picture)
    assert "read at: mean over patches ·" in " ".join(mean.get_supxlabel().split())


def test_a_hybrid_is_drawn(tmp_path: Path, picture: Path):
    """Block and stem of model/conformer_pico."""
    attention, conv = partial(SelfAttention, num_heads=2), partial(ConvModule, kernel_size=3)
    block = partial(ConformerBlock, mixer=attention, mlp=partial(Mlp, mlp_ratio=0.84), conv=conv)
    backbone = partial(
        Backbone, patch_size=2, embed_dim=24, depth=2, prefix=(), patch_embed=ConvStem, pos_embed=NoPositions
    )
    net = redrawn(ViT((6, 10), 3, 4, partial(backbone, block=block), partial(Head, pool=MeanPool)))
    loaded = bundle.load(_saved(tmp_path / "model", net), device="cpu")
    figure = rollout_figure(loaded, picture)
    seen = rollout_map(loaded.net, loaded.preprocessing(picture)[None])
    drawn = np.array(figure.axes[1].images[1].get_array())
    assert drawn.shape == (3, 5) and np.ptp(drawn) > 0.01
    np.testing.assert_allclose(drawn, seen.heat[0] / seen.heat.mean(), rtol=1e-5)
    assert "read at: mean over patches ·" in " ".join(figure.get_supxlabel().split())
    (target,) = explain(loaded, [picture], tmp_path / "out")
    assert target.stat().st_size > 1000


@pytest.mark.parametrize(("channels", "suffix"), [(1, ".png"), (2, ".npy"), (4, ".png"), (6, ".npy")])
def test_any_number_of_channels_is_drawn(tmp_path: Path, channels: int, suffix: str):
    """First three of four and more as red, green and blue, two as their mean."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, channels), dtype=np.uint8)
    path = tmp_path / f"x{suffix}"
    if suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels.squeeze()).save(path)
    net = small_vit(in_chans=channels).float()
    folder = tmp_path / "model"
    bundle.save(
        folder,
        net,
        classes=CLASSES,
        preprocessing=Preprocessing((6, 10), channels, (0.5,) * channels, (0.2,) * channels),
    )
    assert main([str(folder), str(path), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "x-rollout.png").exists()
    seen = rollout_figure(bundle.load(folder, device="cpu"), path).axes[0].images[0].get_array()
    expected = pixels[..., :3] if channels > 2 else pixels.mean(axis=-1)
    np.testing.assert_allclose(seen, expected / 255)


def test_overlay_follows_the_crop(tmp_path: Path, model: Path):
    """A wide picture loses its sides: what is drawn is the middle, as the model gets it."""
    wide = np.zeros((60, 200, 3), dtype=np.uint8)
    wide[:, 40:160] = [255, 0, 0]
    Image.fromarray(wide).save(tmp_path / "wide.png")
    seen = rollout_figure(bundle.load(model, device="cpu"), tmp_path / "wide.png").axes[0].images[0].get_array()
    np.testing.assert_allclose(seen, np.broadcast_to(to_rgb("red"), (6, 10, 3)), atol=0.02)


def test_a_net_without_attention_writes_nothing(tmp_path: Path, picture: Path):
    net = ViT(
        (6, 10), 3, 4, partial(Backbone, patch_size=2, embed_dim=24, depth=1, block=partial(Block, mixer=Identity))
    )
    with pytest.raises(ValueError, match="ViT called no attention mechanism"):
        main([str(_saved(tmp_path / "model", net)), str(picture), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_errors_are_one_line(model: Path, picture: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="no model "):
        main([str(tmp_path / "nothing"), str(picture)])
    with pytest.raises(ValueError, match="expected a picture, a folder of pictures or a pattern"):
        main([str(model), str(tmp_path / "nothing.png")])
    (tmp_path / "broken.png").write_bytes(picture.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"broken\.png") as error:
        main([str(model), str(tmp_path / "broken.png"), "--out", str(tmp_path / "out")])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_explaining_changes_no_answer(model: Path, picture: Path, tmp_path: Path):
    loaded = bundle.load(model, device="cpu")
    before = loaded.predict(picture)
    explain(loaded, [picture], tmp_path / "out")
    assert loaded.predict(picture) == before


def _saved(folder: Path, net: torch.nn.Module) -> Path:
    preprocessing = Preprocessing((6, 10), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    bundle.save(folder, net, classes=CLASSES, preprocessing=preprocessing)
    return folder


def _picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path
