"""One decode policy: sizes, channels, number types. Odd and bad files have a file of their own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import vit
from tests.helpers import TINY
from vit import run
from vit.data import images
from vit.data.images import Preprocessing, decode
from vit.data.source import Source, fitted

GREY = Preprocessing((5, 7), 1, (0.25,), (0.5,))
RGB = Preprocessing((5, 7), 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
RGBA = Preprocessing((5, 7), 4, (0.5,) * 4, (0.25,) * 4)


def ramp(height: int, width: int, top: float) -> np.ndarray:
    return np.linspace(0, top, height * width).reshape(height, width)


def test_values_are_normalised_per_channel():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    expected = (
        torch.from_numpy(pixels).permute(2, 0, 1).double() / 255 - torch.tensor(RGB.mean).double()[:, None, None]
    ) / (torch.tensor(RGB.std).double()[:, None, None])
    assert_close(RGB(pixels).double(), expected, atol=1e-6, rtol=0)
    assert RGB(pixels).is_contiguous()


def test_a_file_a_picture_and_an_array_agree(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (11, 13, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    one, two, three = RGB(tmp_path / "a.png"), RGB(Image.fromarray(pixels)), RGB(pixels)
    assert torch.equal(one, two) and torch.equal(one, three) and one.shape == (3, 5, 7)


def test_right_size_is_left_alone_and_larger_is_cut_to_the_centre():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 1), dtype=np.uint8)
    assert GREY.pixels(pixels) is pixels
    wide = np.concatenate([np.zeros((5, 6, 1), np.uint8), pixels, np.zeros((5, 6, 1), np.uint8)], axis=1)
    assert np.array_equal(GREY.pixels(wide), pixels)


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([[0, 255]], np.uint8), (50, 35))
    assert np.ptp(GREY.pixels(stripes)[1:-1, 1:-1].astype(int)) <= 2


def test_sixteen_bit_and_float_arrays_are_scaled_linearly():
    expected = np.rint(ramp(5, 7, 255))
    for top, kind in (
        (65535, "<u2"),
        (65535, ">u2"),
        (1, "f2"),
        (1, "f4"),
        (1, "f8"),
    ):
        assert np.abs(GREY.pixels(ramp(5, 7, top).astype(kind))[..., 0] - expected).max() <= 1, (top, kind)
    half = np.full((5, 7), 30000, np.uint16)  # scaled by the type's range, not stretched to the picture's own
    assert (GREY.pixels(half) == round(30000 / 65535 * 255)).all()


@pytest.mark.parametrize(
    ("kind", "suffix"), [("i4", "tif"), ("i4", "npy"), ("f4", "tif"), ("f8", "npy"), ("u2", "png")]
)
def test_a_dark_picture_is_scaled_as_a_bright_one_is(tmp_path: Path, kind: str, suffix: str):
    for name, value in (("dark", 1), ("bright", 4095)):
        values, path = np.full((5, 7), value, kind), tmp_path / f"{name}.{suffix}"
        np.save(path, values) if suffix == "npy" else Image.fromarray(values).save(path)
    twelve = replace(GREY, value_range=(0, 4095))
    for name, shade in (("dark", 0), ("bright", 255)):
        assert (twelve.pixels(tmp_path / f"{name}.{suffix}") == shade).all()
    assert (twelve.pixels(np.full((5, 7), 2048, kind)) == round(2048 * 255 / 4095)).all()
    beyond = replace(GREY, value_range=(0, 4000))
    with pytest.raises(
        ValueError, match=rf"bright.{suffix}: .*expected .* within 0..4000, got 4095..4095: --data.value"
    ):
        beyond.pixels(tmp_path / f"bright.{suffix}")


def test_what_has_no_range_of_its_own_is_an_error_that_says_what_to_do(tmp_path: Path):
    for kind, value, reason in (
        ("f4", 255, "expected float32 values within 0..1, got 255..255: --data.value_range"),
        ("i4", 255, "expected a range for int32 values, which could be anything: --data.value_range"),
    ):
        np.save(tmp_path / "a.npy", np.full((5, 7), value, kind))
        with pytest.raises(ValueError, match=rf"a.npy: .*{reason}"):
            GREY(tmp_path / "a.npy")
    centred = replace(GREY, value_range=(-1, 1))
    assert [centred.pixels(np.full((5, 7), value, "f4"))[0, 0, 0] for value in (-1, 0, 1)] == [0, 128, 255]
    with pytest.raises(ValueError, match=r"value_range must be the values of black and white, got \(1, 1\)"):
        replace(GREY, value_range=(1, 1))


def test_bands_share_one_scale():
    bands = np.stack([np.full((5, 7), value) for value in (0.5, 1.0, 51.0, 102.0, 255.0)], axis=2)
    five = Preprocessing((5, 7), 5, (0.5,) * 5, (0.25,) * 5, (0, 255))
    assert five.pixels(bands.astype(np.float32))[2, 3].tolist() == [0, 1, 51, 102, 255]


@pytest.mark.parametrize("channels", [2, 3, 4, 5, 64])
def test_every_band_is_resized_as_grey_is(channels: int, tmp_path: Path):
    array = np.random.default_rng(0).integers(0, 256, (11, 13, channels), dtype=np.uint8)
    many = Preprocessing((5, 7), channels, (0.5,) * channels, (0.25,) * channels)
    expected = np.dstack([GREY.pixels(array[..., band]) for band in range(channels)])
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(many.pixels(array), expected) and np.array_equal(many.pixels(tmp_path / "a.npy"), expected)
    if channels in (3, 4):
        Image.fromarray(array).save(tmp_path / "a.png")
        assert np.array_equal(many.pixels(tmp_path / "a.png"), expected)


def test_alpha_is_the_fourth_channel(tmp_path: Path):
    pictures = {
        (255, 0, 0, 0): Image.new("RGBA", (7, 5), (255, 0, 0, 0)),  # the colour below full transparency stays
        (9, 9, 9, 200): Image.new("LA", (7, 5), (9, 200)),
        (10, 20, 30, 255): Image.new("RGB", (7, 5), (10, 20, 30)),
        (7, 7, 7, 255): Image.new("L", (7, 5), 7),
    }
    for colour, image in pictures.items():
        image.save(tmp_path / "a.png")
        assert (RGBA.pixels(tmp_path / "a.png") == colour).all(), image.mode
    with pytest.raises(ValueError, match=r"a.png.*expected an array .* of 5 channels, pictures have 1, 3 or 4"):
        Preprocessing((5, 7), 5, (0.5,) * 5, (0.5,) * 5)(tmp_path / "a.png")


def textured(height: int, width: int) -> Image.Image:
    """Waves of several lengths under noise."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 60 * np.sin(x / 19 + y / 31) + 40 * np.cos(y / length) for length in (7, 11, 23)]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    return Image.fromarray((np.stack(waves, axis=2) + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("height", [131, 533])
def test_a_jpeg_shrunk_while_decoding_stays_close_to_the_whole(tmp_path: Path, height: int, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    textured(height, height * 3 // 2 + 2).save(tmp_path / "a.jpg", exif=exif, quality=90)
    for img_size in ((64, 64), (32, 61)):
        prepared = Preprocessing(img_size, 3, (0.5,) * 3, (0.25,) * 3)
        with Image.open(tmp_path / "a.jpg") as image:
            image.load()
            whole = prepared.pixels(image).astype(int)
        assert np.abs(prepared.pixels(tmp_path / "a.jpg") - whole).mean() < 1.5


def test_a_jpeg_is_decoded_no_larger_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr(images, "standard", lambda image, *_: sizes.append(image.size) or (image.copy(),))
    textured(160, 320).save(tmp_path / "a.jpg")
    for img_size in ((20, 40), (20, 41), (80, 2), (1, 1), (100, 300), (300, 600)):
        decode(tmp_path / "a.jpg", 3, img_size)
    assert sizes == [(40, 20), (80, 40), (160, 80), (40, 20), (320, 160), (320, 160)]


def test_training_sees_what_prediction_sees(tmp_path: Path):
    textured(300, 500).save(tmp_path / "a.jpg")
    trained = fitted(Source([tmp_path / "a.jpg"], np.zeros(1, np.int64)), RGB).pictures
    assert isinstance(trained, np.ndarray) and np.array_equal(trained[0], RGB.pixels(tmp_path / "a.jpg"))


@pytest.mark.parametrize(("channels", "suffix"), [(5, "npy"), (4, "png")])
def test_a_folder_of_other_channels_trains_and_predicts(tmp_path: Path, channels: int, suffix: str):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 9, 11, channels), dtype=np.uint8)
    files = [tmp_path / "data" / "ab"[number % 2] / f"{number}.{suffix}" for number in range(24)]
    for path, array in zip(files, pixels, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == "npy":
            np.save(path, array)
        else:
            Image.fromarray(array).save(path)
    options = ["--data.img_size=8", "--data.augment=strong", "--trainer.max_epochs=1", f"--data.channels={channels}"]
    done = run.fit([*TINY, *options, "--data.root", str(tmp_path / "data"), "--run", str(tmp_path / "run")])
    model = vit.load(done.folder)
    assert model.preprocessing.channels == channels and model.preprocessing.mean == pytest.approx((0.449,) * channels)
    predicted = model.predict(files)
    assert len(predicted) == 24 and [p.probabilities for p in predicted] == [
        p.probabilities for p in model.predict(list(pixels))
    ]


def test_bad_arrays_and_settings_are_refused():
    for shape, kind in (((5, 7, 2), "u1"), ((5, 7, 5), "u1"), ((5,), "u1"), ((5, 7), "bool"), ((0, 7), "f4")):
        with pytest.raises(ValueError, match="expected"):
            RGB(np.zeros(shape, kind))
    with pytest.raises(ValueError, match="at most 89478485 pixels of up to 4 channels, got 1024x9000 of 64"):
        Preprocessing((5, 7), 64, (0.0,) * 64, (1.0,) * 64)(np.broadcast_to(np.uint8(0), (9000, 1024, 64)))
    for channels in (0, 65):
        with pytest.raises(ValueError, match=f"got {channels}"):
            Preprocessing((5, 7), channels, (0.0,) * channels, (1.0,) * channels)
    with pytest.raises(ValueError, match="0x7"):
        Preprocessing((0, 7), 1, (0.0,), (1.0,))
    with pytest.raises(ValueError, match="expected 3 means"):
        Preprocessing((5, 7), 3, (0.0,), (1.0,))


def test_survives_json():
    for given in (RGB, replace(RGB, value_range=(0, 4095))):
        assert Preprocessing.from_dict(json.loads(json.dumps(given.to_dict()))) == given
    older = {name: value for name, value in RGB.to_dict().items() if name != "value_range"}
    assert Preprocessing.from_dict(older) == RGB
