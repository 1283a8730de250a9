"""Odd files through the decode policy: exact pixels."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.stored import png, tiff
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


def deep(folder: Path) -> Expected:
    """12 bits, 16 of which 0 is white, and 16 of several bands, of which the first 8 are read."""
    twelve, sixteen = (np.rint(RAMP * top).astype(np.uint16)[..., None] for top in (4095, 65535))
    (folder / "12.tif").write_bytes(tiff(twelve, 1, bits=12))
    for name, first in (("white_first", 0), ("black_first", 1)):
        (folder / f"{name}.tif").write_bytes(tiff(sixteen, first))
        turned = Image.open(folder / f"{name}.tif").transpose(UNDO[6])
        turned.save(folder / f"{name}_turned.tif", tiffinfo={262: first, 274: 6})
    Image.fromarray(255 - NOISE[..., 0]).save(folder / "white_first_8.tif", tiffinfo={262: 0})
    colours = np.random.default_rng(1).integers(0, 65536, (5, 7, 4), dtype=np.uint16)
    (folder / "rgb_16.png").write_bytes(png(colours[..., :3]))
    (folder / "rgb_16.tif").write_bytes(tiff(colours[..., :3], 2))
    (folder / "grey_alpha_16.png").write_bytes(png(np.concatenate([sixteen, np.full_like(sixteen, 65535)], 2)))
    (folder / "cmyk_16.tif").write_bytes(tiff(np.full((5, 7, 4), [0, 65535, 65535, 0], np.uint16), 5))
    negative = np.rint((65535 - sixteen.astype(int)) * (255 / 65535)).astype(np.uint8).repeat(3, axis=2)
    high = (colours[..., :3] >> 8).astype(np.uint8)
    return {
        "12.tif": scaled(4095),
        "white_first.tif": negative,
        "white_first_turned.tif": negative,
        "black_first.tif": scaled(65535),
        "black_first_turned.tif": scaled(65535),
        "white_first_8.tif": (255 - NOISE[..., :1]).repeat(3, axis=2),
        "rgb_16.png": high,
        "rgb_16.tif": high,
        "grey_alpha_16.png": (sixteen >> 8).astype(np.uint8).repeat(3, axis=2),
        "cmyk_16.tif": (255, 0, 0),
    }


def orientations(folder: Path) -> Expected:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        upright = Image.fromarray(NOISE)
        stored = upright.transpose(UNDO[orientation]) if orientation in UNDO else upright
        stored.save(folder / f"exif{orientation}.png", exif=exif)
        stored.convert("L").save(folder / f"tag{orientation}.tif", tiffinfo={274: orientation})
    exif = Image.Exif()
    exif[0x0112] = 9
    Image.fromarray(NOISE).save(folder / "exif9.png", exif=exif)
    grey = np.asarray(Image.fromarray(NOISE).convert("L"))[..., None].repeat(3, axis=2)
    turned: Expected = {f"tag{orientation}.tif": grey for orientation in range(1, 9)}
    return turned | {f"exif{orientation}.png": NOISE for orientation in range(1, 10)}


def animations(folder: Path) -> Expected:
    frames = [Image.new("RGB", (7, 5), colour) for colour in ("red", "blue", "lime")]
    names = ("frames.gif", "frames.png", "pages.tif")
    for name in names:
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    frames[0].save(folder / "frames.webp", save_all=True, append_images=frames[1:], lossless=True)
    return dict.fromkeys((*names, "frames.webp"), (255, 0, 0))


@pytest.mark.parametrize("make", [kinds, modes, numbers, deep, orientations])
def test_odd_files_have_exact_pixels(tmp_path: Path, make):
    for name, expected in make(tmp_path).items():
        pixels = RGB.pixels(tmp_path / name)
        assert pixels.shape == (5, 7, 3) and pixels.dtype == np.uint8
        assert (pixels == expected).all(), (name, pixels[:, :, 0], expected)
        assert GREY.pixels(tmp_path / name).shape == (5, 7, 1)


def test_a_given_range_holds_for_12_bits_and_where_0_is_white(tmp_path: Path):
    values = np.rint(RAMP * 2000).astype(np.uint16)[..., None]
    (tmp_path / "12.tif").write_bytes(tiff(values, 1, bits=12))
    (tmp_path / "white_first.tif").write_bytes(tiff(values, 0))
    given = replace(RGB, value_range=(0, 2000))
    assert (given.pixels(tmp_path / "12.tif") == scaled(2000)).all()
    assert (given.pixels(tmp_path / "white_first.tif") == 255 - scaled(2000)).all()
    with Image.open(tmp_path / "white_first.tif") as image:  # a file that was opened is one
        assert (given.pixels(image) == 255 - scaled(2000)).all()


def test_an_animation_gives_its_first_frame_and_one_warning(tmp_path: Path):
    for name, colour in animations(tmp_path).items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert (RGB.pixels(tmp_path / name) == colour).all(), name
        assert [(w.category, str(w.message)) for w in caught] == [
            (UserWarning, f"{tmp_path / name}: has several frames, only the first one is used")
        ]
