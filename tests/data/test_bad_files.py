"""Bad files through the decode policy: each one an error that names it."""

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.stored import png, tiff
from vit.data import images
from vit.data.images import Preprocessing
from vit.data.source import Source, readable

RGB = Preprocessing((5, 7), 3, (0.5,) * 3, (0.5,) * 3)
LARGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
RAMP = np.linspace(0, 1, 35).reshape(5, 7)
UNREAD = "cannot be read as a picture"


def declaring(content: bytes, width: int, height: int) -> bytes:
    """A PNG whose header promises another size."""
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def stored(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def broken_bytes(folder: Path) -> dict[str, str]:
    """Cut off, damaged, or no picture at all; name -> what the message has to say."""
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        content = stored(LARGE, kind)
        (folder / f"cut.{kind.lower()}").write_bytes(content[: len(content) // 2])
    jpeg, png = stored(LARGE, "JPEG"), stored(LARGE, "PNG")
    (folder / "nearly.jpg").write_bytes(jpeg[: int(0.97 * len(jpeg))])
    (folder / "header.jpg").write_bytes(jpeg[:20])
    (folder / "damaged.png").write_bytes(png[:2000] + bytes([png[2000] ^ 255]) + png[2001:])
    (folder / "empty.png").touch()
    (folder / "page.jpg").write_text("<!doctype html><html>not found</html>")
    (folder / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    (folder / "drawing.png").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    (folder / "text.bmp").write_text("BM is how a bitmap starts, and this is none")
    (folder / "zeros.jpg").write_bytes(bytes(5000))
    (folder / "program.png").write_bytes(b"\x7fELF" + bytes(range(256)))
    for kind in ("PPM", "ICO", "PCX", "TGA"):
        LARGE.save(folder / f"format.{kind.lower()}")
    (folder / "folder.jpg").mkdir()
    (folder / "folder.npy").mkdir()
    cut = ["cut.jpeg", "cut.png", "cut.webp", "cut.gif", "cut.tiff", "cut.bmp", "nearly.jpg"]
    none = ["page.jpg", "drawing.svg", "drawing.png", "zeros.jpg", "program.png", "empty.png", "header.jpg"]
    none += ["format.ppm", "format.ico", "format.pcx", "format.tga"]
    unread = [*cut, "damaged.png", "text.bmp", "folder.jpg", "folder.npy", "absent.png", "absent.npy"]
    return dict.fromkeys(none, "none of them") | dict.fromkeys(unread, UNREAD)


def out_of_bounds(folder: Path) -> dict[str, str]:
    """Whole pictures of a size, shape or range that is refused."""
    (folder / "bomb.png").write_bytes(declaring(stored(LARGE, "PNG"), 15000, 15000))
    (folder / "large.png").write_bytes(declaring(stored(LARGE, "PNG"), 12000, 9000))
    gif, bmp = stored(LARGE, "GIF"), stored(LARGE, "BMP")
    (folder / "large.gif").write_bytes(gif[:6] + struct.pack("<HH", 12000, 9000) + gif[10:])
    (folder / "large.bmp").write_bytes(bmp[:18] + struct.pack("<ii", 12000, 9000) + bmp[26:])
    for name, size in (("dot.png", (1, 1)), ("line.png", (1, 5000)), ("sliver.png", (3, 500)), ("row.png", (500, 3))):
        Image.new("L", size).save(folder / name)
    for name, value, kind in (
        ("negative.tif", -1, "f4"),
        ("nan.tif", np.nan, "f4"),
        ("infinite.tif", np.inf, "f4"),
        ("beyond.tif", 65536, "f4"),
        ("negative_int.tif", -1, "i4"),
        ("beyond_int.tif", 65536, "i4"),
    ):
        values = RAMP.astype(kind)
        values[2, 3] = value
        Image.fromarray(values).save(folder / name)
    Image.new("RGBX", (7, 5)).save(folder / "bands.tif")
    shapes = dict.fromkeys(["dot.png", "line.png", "sliver.png", "row.png"], "sides of at least 2 .* 1:50")
    large = dict.fromkeys(["bomb.png", "large.png", "large.gif", "large.bmp"], "at most 89478485 pixels")
    names = ["negative.tif", "nan.tif", "infinite.tif", "beyond.tif", "negative_int.tif", "beyond_int.tif"]
    reasons = dict.fromkeys(names[:4], "within 0..1, got") | dict.fromkeys(names[4:], "expected a range for int32")
    return shapes | large | reasons | {"bands.tif": "got 4 bands"}


def of_unsure_values(folder: Path) -> dict[str, str]:
    """TIFF files that do not say what is black, or which Pillow reads as something else."""
    grey = np.rint(RAMP * 65535).astype(np.uint16)[..., None]
    Image.fromarray(RAMP.astype(np.float32)).save(folder / "white_first.tif", tiffinfo={262: 0})
    (folder / "untold.tif").write_bytes(tiff(grey, None))
    (folder / "planes.tif").write_bytes(tiff(grey.repeat(3, axis=2), 2, planar=True))
    (folder / "plane.tif").write_bytes(tiff(grey >> 8, 0, bits=8, planar=True))
    return {
        "white_first.tif": "expected floats of which the lowest is black, .*: save it as .npy",
        "untold.tif": "expected a TIFF of 16 bits to say whether its lowest value is black: save it as .npy",
        "planes.tif": "expected bands within each pixel, got planes of 16 bits",
        "plane.tif": "expected bands within each pixel, got planes of 8 bits",
    }


def bad_arrays(folder: Path) -> dict[str, str]:
    arrays = {
        "flat.npy": (np.zeros(35), r"\(h w\) or \(h w c\), got float64 \(35,\)"),
        "batch.npy": (np.zeros((2, 5, 7, 3)), r"got float64 \(2, 5, 7, 3\)"),
        "none.npy": (np.zeros((0, 7)), "sides of at least 2"),
        "two.npy": (np.zeros((5, 7, 2)), "expected an array of 3 channels, got 2"),
        "five.npy": (np.zeros((5, 7, 5)), "expected an array of 3 channels, got 5"),
        "first.npy": (np.zeros((3, 20, 20)), "expected an array of 3 channels, got 20"),
        "complex.npy": (np.zeros((5, 7), complex), "expected numbers"),
        "truth.npy": (np.zeros((5, 7), bool), "expected numbers"),
        "fields.npy": (np.zeros((5, 7), [("a", "f4")]), "expected numbers"),
        "text.npy": (np.full((5, 7), "a"), "expected numbers"),
        "nan.npy": (np.full((5, 7), np.nan), "within 0..1, got nan"),
        "negative.npy": (np.full((5, 7), -1, "i2"), "within 0..65535, got -1"),
        "pickle.npy": (np.full((5, 7), None), "Python objects"),
    }
    for name, (array, _) in arrays.items():
        np.save(folder / name, array, allow_pickle=True)
    whole = (folder / "five.npy").read_bytes()
    (folder / "cut.npy").write_bytes(whole[:-1])
    (folder / "header.npy").write_bytes(whole[:40])
    (folder / "torn.npy").write_bytes(whole[:10] + b"{('descr'".ljust(len(whole) - 10))  # no ValueError of numpy's
    (folder / "empty.npy").touch()
    (folder / "page.npy").write_text("<!doctype html><html>not found</html>")
    LARGE.save(folder / "picture.npy", "PNG")
    np.savez(folder / "several.npz", np.asarray(LARGE))
    (folder / "several.npz").rename(folder / "several.npy")
    np.save(folder / "array.npy", np.asarray(LARGE))
    (folder / "array.npy").rename(folder / "array.png")
    with (folder / "large.npy").open("wb") as file:  # 100 million pixels that take no space
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10000, 10000)})
        file.truncate(file.tell() + 10000 * 10000)
    reasons = {name: reason for name, (_, reason) in arrays.items()} | {"large.npy": "at most 89478485 pixels"}
    unread = ["cut.npy", "header.npy", "torn.npy", "empty.npy", "page.npy", "picture.npy", "several.npy"]
    return reasons | dict.fromkeys(unread, UNREAD) | {"array.png": "none of them"}


@pytest.mark.parametrize("make", [broken_bytes, out_of_bounds, of_unsure_values, bad_arrays])
def test_a_bad_file_is_one_line_naming_it(tmp_path: Path, make):
    for name, reason in make(tmp_path).items():
        with pytest.raises(ValueError, match=reason) as caught:
            RGB(tmp_path / name)
            pytest.fail(f"{name} was read")
        assert name in str(caught.value) and "\n" not in str(caught.value), name


def test_the_limit_holds_where_pillows_was_lifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reasons = out_of_bounds(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    for name in ("bomb.png", "large.png", "large.gif", "large.bmp"):
        with pytest.raises(ValueError, match=reasons[name]):
            RGB(tmp_path / name)


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_several_bands_of_16_bits_have_no_other_range(tmp_path: Path, bands: int):
    values = np.random.default_rng(0).integers(0, 4096, (5, 7, bands), dtype=np.uint16)
    contents = {"a.png": png(values)} | ({"a.tif": tiff(values, {3: 2, 4: 5}[bands])} if bands > 2 else {})
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        twelve, own = (replace(RGB, value_range=(0, top)) for top in (4095, 65535))
        message = rf"{name}: .*expected one band of 16 bits where .* got [34] .* 0..65535 alone: leave out --data.value"
        with pytest.raises(ValueError, match=message):
            twelve.pixels(tmp_path / name)
        with Image.open(tmp_path / name) as image, pytest.raises(ValueError, match="expected one band of 16 bits"):
            twelve.pixels(image)
        assert np.array_equal(own.pixels(tmp_path / name), RGB.pixels(tmp_path / name))


def test_memory_that_ran_out_is_not_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "standard", full)
    LARGE.save(tmp_path / "0.png")
    with pytest.raises(MemoryError):
        readable(Source([tmp_path / "0.png"], np.zeros(1, int)), RGB, np.arange(1))


def test_these_are_more_than_forty(tmp_path: Path):
    assert sum(len(make(tmp_path)) for make in (broken_bytes, out_of_bounds, bad_arrays)) > 40


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_sees_how_far_the_search_for_bad_files_is(tmp_path: Path, monkeypatch, capsys, terminal: bool):
    LARGE.save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    monkeypatch.setenv("TTY_COMPATIBLE", str(int(terminal)))
    source = Source([tmp_path / "0.png", tmp_path / "1.png"], np.zeros(2, int))
    samples, problems = readable(source, RGB, np.arange(2))
    assert samples.tolist() == [0] and [*problems] == [1] and "none of them" in problems[1]
    out, err = capsys.readouterr()
    assert out == "" and ("reading pictures" in err and "100%" in err if terminal else err == "")
