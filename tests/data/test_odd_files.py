"""Odd files through the decode policy: exact pixels."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit.data.images import Preprocessing

GREY = Preprocessing((5, 7), 1, (0.5,), (0.5,))
RGB = Preprocessing((5, 7), 3, (0.5,) * 3, (0.5,) * 3)
NOISE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
RAMP = np.linspace(0, 1, 35).reshape(5, 7)
UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
Expected = dict[str, np.ndarray | tuple[int, int, int]]


def scaled(top: float) -> np.ndarray:
    """What becomes of the ramp stored as whole numbers up to ``top``."""
    return np.rint(np.rint(RAMP * top) * (255 / top)).astype(np.uint8)[..., None].repeat(3, axis=2)


def kinds(folder: Path) -> Expected:
    """Every format, container and name."""
    noise, long = Image.fromarray(NOISE), "n" * 251 + ".png"
    names = ["rgb.png", "rgb.bmp", "rgb.tif", "upper.PNG", "ünï códe 図.png", long]
    for name in names:
        noise.save(folder / name)
    noise.save(folder / "rgb.webp", lossless=True)
    noise.save(folder / "content.jpg", "PNG")
    noise.save(folder / "no_suffix", "PNG")
    noise.convert("L").save(folder / "grey.png")
    Image.new("L", (7, 5), 128).save(folder / "flat.jpg")
    views = [Image.new("L", (7, 5), value) for value in (128, 0)]
    views[0].save(folder / "views.jpg", "MPO", save_all=True, append_images=views[1:])
    np.save(folder / "rgb.npy", NOISE)
    np.save(folder / "columns.npy", np.asfortranarray(NOISE))
    grey = np.asarray(noise.convert("L"))[..., None].repeat(3, axis=2)
    same: Expected = dict.fromkeys([*names, "rgb.webp", "content.jpg", "no_suffix", "rgb.npy", "columns.npy"], NOISE)
    return same | {"grey.png": grey, "flat.jpg": (128, 128, 128), "views.jpg": (128, 128, 128)}


def modes(folder: Path) -> Expected:
    """Palette, transparency, CMYK and 1-bit."""
    palette = Image.new("P", (7, 5), 1)
    palette.putpalette([9, 9, 9, 10, 20, 30])
    palette.save(folder / "palette.png")
    palette.save(folder / "palette_clear.png", transparency=1)
    palette.save(folder / "palette_other.png", transparency=0)
    Image.new("RGB", (7, 5), "red").save(folder / "colour_clear.png", transparency=(255, 0, 0))
    Image.new("RGBA", (7, 5), (255, 0, 0, 0)).save(folder / "clear.png")
    Image.new("RGBA", (7, 5), (255, 0, 0, 128)).save(folder / "half.png")
    Image.new("LA", (7, 5), (0, 0)).save(folder / "grey_clear.png")
    Image.new("LA", (7, 5), (40, 255)).save(folder / "grey_opaque.png")
    Image.new("1", (7, 5), 1).save(folder / "one_bit.png")
    Image.new("CMYK", (7, 5), (0, 255, 255, 0)).save(folder / "cmyk.tif")
    Image.new("CMYK", (7, 5), (0, 0, 0, 255)).save(folder / "cmyk.jpg")
    white = (255, 255, 255)
    return {
        "palette.png": (10, 20, 30),
        "palette_clear.png": white,
        "palette_other.png": (10, 20, 30),
        "colour_clear.png": white,
        "clear.png": white,
        "half.png": (255, 127, 127),
        "grey_clear.png": white,
        "grey_opaque.png": (40, 40, 40),
        "one_bit.png": white,
        "cmyk.tif": (255, 0, 0),
        "cmyk.jpg": (0, 0, 0),
    }


def numbers(folder: Path) -> Expected:
    """16-bit and float ramps, never white, black or stretched."""
    expected: Expected = {}
    for name, top, kind in (
        ("16.png", 65535, "u2"),
        ("16.tif", 65535, "u2"),
        ("16.npy", 65535, "u2"),
        ("16_other_end.npy", 65535, ">u2"),
    ):
        values = np.rint(RAMP * top).astype(kind)
        np.save(folder / name, values) if name.endswith("npy") else Image.fromarray(values).save(folder / name)
        expected[name] = scaled(top)
    exact = np.arange(35).reshape(5, 7) / 64
    Image.fromarray(exact.astype(np.float32)).save(folder / "float_one.tif")
    np.save(folder / "half_float_one.npy", exact.astype(np.float16))
    Image.fromarray(np.full((5, 7), 0.25, np.float32)).save(folder / "dim.tif")
    shades = np.rint(exact * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    return expected | {"float_one.tif": shades, "half_float_one.npy": shades, "dim.tif": (64, 64, 64)}


def orientations(folder: Path) -> Expected:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        upright = Image.fromarray(NOISE)
        stored = upright.transpose(UNDO[orientation]) if orientation in UNDO else upright
        stored.save(folder / f"exif{orientation}.png", exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 9
    Image.fromarray(NOISE).save(folder / "exif9.png", exif=exif)
    return {f"exif{orientation}.png": NOISE for orientation in range(1, 10)}


def animations(folder: Path) -> Expected:
    frames = [Image.new("RGB", (7, 5), colour) for colour in ("red", "blue", "lime")]
    names = ("frames.gif", "frames.png", "pages.tif")
    for name in names:
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    frames[0].save(folder / "frames.webp", save_all=True, append_images=frames[1:], lossless=True)
    return dict.fromkeys((*names, "frames.webp"), (255, 0, 0))


@pytest.mark.parametrize("make", [kinds, modes, numbers, orientations])
def test_odd_files_have_exact_pixels(tmp_path: Path, make):
    for name, expected in make(tmp_path).items():
        pixels = RGB.pixels(tmp_path / name)
        assert pixels.shape == (5, 7, 3) and pixels.dtype == np.uint8
        assert (pixels == expected).all(), (name, pixels[:, :, 0], expected)
        assert GREY.pixels(tmp_path / name).shape == (5, 7, 1)


def test_an_animation_gives_its_first_frame_and_one_warning(tmp_path: Path):
    for name, colour in animations(tmp_path).items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert (RGB.pixels(tmp_path / name) == colour).all(), name
        assert [(w.category, str(w.message)) for w in caught] == [
            (UserWarning, f"{tmp_path / name}: has several frames, only the first one is used")
        ]
