"""One decode policy: exact values for every odd kind of file, a named error for every bad one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from vit.data.images import Preprocessing

GREY = Preprocessing((5, 7), 1, (0.25,), (0.5,))
RGB = Preprocessing((5, 7), 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


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


def test_sixteen_bit_and_float_are_scaled_linearly(tmp_path: Path):
    expected = np.rint(ramp(5, 7, 255))
    Image.fromarray(ramp(5, 7, 65535).astype(np.uint16)).save(tmp_path / "16.png")
    for name, top in (("one", 1.0), ("byte", 255.0), ("word", 65535.0)):
        Image.fromarray(ramp(5, 7, top).astype(np.float32)).save(tmp_path / f"{name}.tif")
    Image.fromarray(ramp(5, 7, 65535).astype(np.int32)).save(tmp_path / "int.tif")
    for path in tmp_path.iterdir():
        assert np.abs(GREY.pixels(path)[..., 0] - expected).max() <= 1, path.name
    assert np.abs(GREY.pixels(ramp(5, 7, 65535).astype(np.uint16))[..., 0] - expected).max() <= 1
    half = np.full((5, 7), 30000, np.uint16)  # scaled by the type's range, not stretched to the picture's own
    assert (GREY.pixels(half) == round(30000 / 65535 * 255)).all()


def test_alpha_palette_cmyk_and_one_bit(tmp_path: Path):
    clear = Image.new("RGBA", (7, 5), (255, 0, 0, 0))
    half = Image.new("RGBA", (7, 5), (255, 0, 0, 128))
    palette = Image.new("P", (7, 5), 1)
    palette.putpalette([9, 9, 9, 10, 20, 30])
    through = palette.copy()
    through.info["transparency"] = 1
    cases = {
        (255, 255, 255): [clear, Image.new("LA", (7, 5), (0, 0)), through, Image.new("1", (7, 5), 1)],
        (255, 127, 127): [half],
        (10, 20, 30): [palette],
        (255, 0, 0): [Image.new("CMYK", (7, 5), (0, 255, 255, 0))],
    }
    for colour, images in cases.items():
        for image in images:
            path = tmp_path / ("a.tif" if image.mode == "CMYK" else "a.png")
            image.save(path)
            assert (RGB.pixels(path) == colour).all(), (image.mode, colour)
            assert GREY.pixels(path).shape == (5, 7, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_come_out_upright(tmp_path: Path, orientation: int):
    upright = Image.fromarray(ramp(10, 14, 255).astype(np.uint8))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(GREY.pixels(tmp_path / "a.png"), GREY.pixels(upright))


def test_animated_gives_its_first_frame(tmp_path: Path):
    frames = [Image.new("RGB", (7, 5), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert np.abs(RGB.pixels(tmp_path / name).astype(int) - (255, 0, 0)).max() <= 1


def bad_files(folder: Path) -> dict[str, str]:
    """Name -> what the message has to say."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(folder / "whole.jpg")
    noise.save(folder / "whole.png")
    for name in ("cut.jpg", "cut.png"):
        whole = (folder / f"whole{Path(name).suffix}").read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "page.jpg").write_text("<html>not found</html>")
    noise.save(folder / "format.ppm")
    Image.new("1", (15000, 15000)).save(folder / "bomb.png")
    Image.new("1", (12000, 9000)).save(folder / "large.png")
    Image.new("L", (1, 1)).save(folder / "dot.png")
    Image.new("L", (3, 500)).save(folder / "sliver.png")
    Image.fromarray(np.full((5, 7), -1, np.float32)).save(folder / "negative.tif")
    Image.fromarray(np.full((5, 7), np.nan, np.float32)).save(folder / "nan.tif")
    (folder / "folder.png").mkdir()
    return {
        "cut.jpg": "cannot be read",
        "cut.png": "cannot be read",
        "empty.png": "none of them",
        "page.jpg": "none of them",
        "format.ppm": "none of them",
        "bomb.png": "pixels",
        "large.png": "pixels",
        "dot.png": "sides of at least",
        "sliver.png": "1:50",
        "negative.tif": "cannot be read.*within 0..65535",
        "nan.tif": "within 0..65535",
        "folder.png": "cannot be read",
        "absent.png": "cannot be read",
    }


def test_a_bad_file_is_one_line_naming_it(tmp_path: Path):
    for name, reason in bad_files(tmp_path).items():
        with pytest.raises(ValueError, match=reason) as caught:
            RGB(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_bad_arrays_and_settings_are_refused():
    for array in (np.zeros((5, 7, 2), np.uint8), np.zeros((5, 7, 3), np.float32), np.zeros(5, np.uint8)):
        with pytest.raises(ValueError, match="expected"):
            RGB(array)
    with pytest.raises(ValueError, match="got 2"):
        Preprocessing((5, 7), 2, (0.0, 0.0), (1.0, 1.0))
    with pytest.raises(ValueError, match="0x7"):
        Preprocessing((0, 7), 1, (0.0,), (1.0,))
    with pytest.raises(ValueError, match="expected 3 means"):
        Preprocessing((5, 7), 3, (0.0,), (1.0,))


def test_survives_json():
    assert Preprocessing.from_dict(json.loads(json.dumps(RGB.to_dict()))) == RGB
