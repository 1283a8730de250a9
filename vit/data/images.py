"""The one way a picture becomes numbers: decode, convert, resize and crop, normalise.

The same code trains, tests and predicts.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from numpy.lib.format import open_memmap
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from vit.data.depth import Range, check_stored, eight_bits, is_wide, shades

Picture = Image.Image | np.ndarray | str | Path
Bands = tuple[Image.Image, ...]  # 8-bit pictures of one size, whose channels one after another are those wanted
Box = tuple[float, float, float, float]  # left, top, right, bottom
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # everything else Pillow can open is attack surface
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".npy"})
MIN_SIDE, MAX_ASPECT = 2, 50
MAX_PIXELS = 2**30 // 12  # Pillow's own limit, which anyone can lift; of more than 4 channels in proportion fewer
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
MAX_CHANNELS = 64

# Above its limit Pillow only warns; a filter, unlike catch_warnings, also holds in decoding threads.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def decode(
    path: str | Path, channels: int, img_size: tuple[int, int] | None = None, value_range: Range | None = None
) -> Bands:
    """One file as `standard` bands: a picture, the first frame of an animation (with a warning), or a `.npy` array.

    Args:
        path: The file.
        channels: 1, 3 or 4, or up to `MAX_CHANNELS` of an array.
        img_size: Height and width to `cover`, for which the JPEG decoder shrinks by 2, 4 or 8 where that is enough.
            None leaves the size as it is.
        value_range: See `Preprocessing`.

    Raises:
        ValueError: not a picture of `FORMATS`, cut off, too large or of extreme shape; the message names the file.
    """
    animated = False
    with _naming(path):
        if Path(path).suffix.lower() == ".npy":
            bands, box = _from_array(open_memmap(path, mode="r"), channels, value_range), None
        else:
            # By its name Pillow would map plain grey of a TIFF into memory, and scramble one that a tag turns.
            with Path(path).open("rb") as file, Image.open(file, formats=FORMATS) as image:
                _check_shape(*image.size)
                check_stored(image, value_range)
                # What lies behind an MPO's first picture is its preview or other eye.
                animated = image.format != "MPO" and getattr(image, "is_animated", False)
                box = None if img_size is None else _draft(image, *img_size)
                bands = standard(image, channels, value_range)
    if animated:
        warnings.warn(f"{path}: has several frames, only the first one is used", stacklevel=2)
    return bands if img_size is None else tuple(cover(band, *img_size, box) for band in bands)


def mapped(path: str | Path) -> np.ndarray:
    """The array of a `.npy` file, of which no value is read yet.

    Raises:
        ValueError: it is damaged or holds no numbers; the message names the file.
    """
    with _naming(path):
        return open_memmap(path, mode="r")  # refuses pickled objects


def standard(image: Image.Image, channels: int, value_range: Range | None = None) -> Bands:
    """Upright 8-bit picture: grey for 1 channel, RGB for 3, RGB and alpha for 4.

    EXIF orientation is applied; transparency is laid over white, or is the fourth of 4 channels, opaque where the
    picture has none; CMYK, palette and 1-bit pictures are converted without a colour profile; grey of more than 8 bits
    is scaled from ``value_range``, or from 0..65535 of 16 bits, 0..4095 of 12 and 0..1 of floats; 32-bit whole numbers
    have no other. Where a TIFF says that 0 is white, it becomes white.

    Raises:
        ValueError: another number of channels, grey values beyond the range, or no range for them.
    """
    if channels not in MODES:
        raise ValueError(f"expected an array (.npy) of {channels} channels, pictures have 1, 3 or 4")
    upright = ImageOps.exif_transpose(image)
    image = Image.fromarray(shades(image, upright, value_range)) if is_wide(upright) else upright
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if channels < 4:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert(MODES[channels])
    return image.split() if channels == 4 else (image,)  # resized at once, RGB would be weighted by alpha


def cover(image: Image.Image, height: int, width: int, box: Box | None = None) -> Image.Image:
    """Scale until the shorter side (of ``box``) fits, then cut out the centre; antialiased, exact where both fit."""
    if image.size == (width, height):
        return image
    left, top, right, bottom = box or (0, 0, *image.size)
    scale = min((right - left) / width, (bottom - top) / height)
    left, top = (left + right - scale * width) / 2, (top + bottom - scale * height) / 2
    box = (left, top, left + scale * width, top + scale * height)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)


@dataclass(frozen=True)
class Preprocessing:
    """Picture -> normalised tensor of a fixed size.

    Attributes:
        img_size: Height and width of the result in pixels.
        channels: 1 (grey), 3 (RGB), 4 (RGB and alpha), or any number up to `MAX_CHANNELS` for arrays.
        mean: Per channel, of values in 0..1.
        std: Per channel, of values in 0..1.
        value_range: Values of black and white where pictures have more than 8 bits; None is 0..65535 of 16 bits,
            0..4095 of 12, 0..1 of floats, and an error of wider whole numbers, which could be anything. Pillow reads
            colours of 16 bits from 0..65535: with another range they are an error.

    Raises:
        ValueError: no such number of channels, a side below 1, or means, stds or a range that do not fit.
    """

    img_size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: Range | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise ValueError(
                f"channels must be 1 (grey), 3 (RGB), 4 (RGBA) or, of arrays, up to {MAX_CHANNELS}, got {self.channels}"
            )
        if min(self.img_size) < 1:
            raise ValueError(f"img_size must be positive, got {self.img_size[0]}x{self.img_size[1]}")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"expected {self.channels} means and stds, got {len(self.mean)} and {len(self.std)}")
        if self.value_range is not None and not -np.inf < self.value_range[0] < self.value_range[1] < np.inf:
            raise ValueError(f"value_range must be the values of black and white, got {self.value_range}")

    def __call__(self, picture: Picture) -> Float[Tensor, "c h w"]:
        """Raises ValueError for what is not a readable picture, naming the file where there is one."""
        return self.normalise(torch.from_numpy(self.pixels(picture)[None]))[0]

    def pixels(self, picture: Picture) -> UInt8[np.ndarray, "h w c"]:
        """Decode, convert and fit a file, a PIL picture, or an array (h w) or (h w c).

        Arrays have the wanted channels, or 1, 3 or 4 that are converted like pictures.  A large JPEG file is decoded
        near its final size, which a PIL picture of it was not: the two may differ slightly.
        """
        height, width = self.img_size
        if isinstance(picture, np.ndarray):
            if picture.dtype == np.uint8 and picture.shape == (height, width, self.channels):
                return picture
            bands = _from_array(picture, self.channels, self.value_range)
        elif isinstance(picture, Image.Image):
            _check_shape(*picture.size)
            check_stored(picture, self.value_range)
            bands = standard(picture, self.channels, self.value_range)
        else:
            bands = decode(picture, self.channels, self.img_size, self.value_range)
        return np.dstack([np.asarray(cover(band, height, width)) for band in bands])

    def normalise(self, pixels: UInt8[Tensor, "b h w c"]) -> Float[Tensor, "b c h w"]:
        """(pixels / 255 - mean) / std as one multiplication and one addition."""
        std = torch.tensor(self.std).view(-1, 1, 1)
        mean = torch.tensor(self.mean).view(-1, 1, 1)
        return rearrange(pixels, "b h w c -> b c h w").contiguous().float().mul_(1 / (255 * std)).sub_(mean / std)

    def to_dict(self) -> dict[str, object]:
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping) -> "Preprocessing":
        height, width = values["img_size"]
        given = values.get("value_range")  # of older models there is none
        return cls(
            (int(height), int(width)),
            int(values["channels"]),
            tuple(values["mean"]),
            tuple(values["std"]),
            None if given is None else (given[0], given[1]),
        )


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Makes whatever goes wrong with a file one ValueError that names it."""
    try:
        yield
    except MemoryError:  # says nothing of the file
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(f"{path}: expected at most {MAX_PIXELS} pixels, the file declares more") from None
    except Image.UnidentifiedImageError:
        raise ValueError(f"{path}: expected a picture ({', '.join(FORMATS)}), the file is none of them") from None
    except Exception as error:  # broken bytes raise anything from OSError to struct.error, depending on the decoder
        raise ValueError(f"{path}: cannot be read as a picture: {error}") from error


def _check_shape(width: int, height: int, channels: int = 1) -> None:
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"expected sides of at least {MIN_SIDE} pixels, at most 1:{MAX_ASPECT}, got {width} wide and {height} high"
        )
    if width * height * max(1, channels / 4) > MAX_PIXELS:
        raise ValueError(
            f"expected at most {MAX_PIXELS} pixels of up to 4 channels, got {width}x{height} of {channels}"
        )


def _draft(image: Image.Image, height: int, width: int) -> Box | None:
    """Set a JPEG to be decoded at the smallest scale that leaves this size; None for what has no such choice.

    Returns where in the upright result the picture lies: its last row and column may fill their pixels in part.
    """
    turn = image.getexif().get(ExifTags.Base.Orientation)
    sideways = turn in (5, 6, 7, 8)
    drafted = image.draft(None, (height, width) if sideways else (width, height))
    if drafted is None:
        return None
    whole, part = image.size, drafted[1][2:]
    if sideways:
        whole, part = whole[::-1], part[::-1]
    left = whole[0] - part[0] if turn in (2, 3, 6, 7) else 0
    top = whole[1] - part[1] if turn in (3, 4, 7, 8) else 0
    return left, top, left + part[0], top + part[1]


def _from_array(array: np.ndarray, channels: int, value_range: Range | None) -> Bands:
    """Checked before any value is read: the array may be a mapped file."""
    given = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or array.dtype.kind not in "uif":
        raise ValueError(f"expected numbers (h w) or (h w c), got {array.dtype} {array.shape}")
    if given != channels and not {given, channels} <= MODES.keys():
        raise ValueError(f"expected an array of {channels} channels, got {given}: {array.shape}")
    _check_shape(array.shape[1], array.shape[0], given)
    pixels = eight_bits(array, value_range)
    if given in MODES:
        return standard(Image.fromarray(pixels.reshape(array.shape[:2]) if given == 1 else pixels), channels)
    return tuple(Image.fromarray(pixels[..., channel]) for channel in range(channels))
