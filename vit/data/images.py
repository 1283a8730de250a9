"""The one way a picture becomes numbers: decode, convert, resize and crop, normalise.

The same code trains, tests and predicts.
"""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

Picture = Image.Image | np.ndarray | str | Path
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # everything else Pillow can open is attack surface
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
MIN_SIDE, MAX_ASPECT = 2, 50
MODES = {1: "L", 3: "RGB"}

# Above 89 million pixels Pillow only warns; a filter, unlike catch_warnings, also holds in decoding threads.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def decode(path: str | Path, channels: int) -> Image.Image:
    """One file (the first frame of an animated one) as a `standard` picture.

    Raises:
        ValueError: not a picture of `FORMATS`, cut off, too large or of extreme shape; the message names the file.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_shape(*image.size)
            return standard(image, channels)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(f"{path}: expected at most {Image.MAX_IMAGE_PIXELS} pixels, the file declares more") from None
    except Image.UnidentifiedImageError:
        raise ValueError(f"{path}: expected a picture ({', '.join(FORMATS)}), the file is none of them") from None
    except Exception as error:  # broken bytes raise anything from OSError to struct.error, depending on the decoder
        raise ValueError(f"{path}: cannot be read as a picture: {error}") from error


def standard(image: Image.Image, channels: int) -> Image.Image:
    """Upright 8-bit picture, grey for 1 channel or RGB for 3.

    EXIF orientation is applied; transparency is laid over white; CMYK, palette and 1-bit pictures are converted
    without a colour profile; 16-bit grey is scaled from 0..65535; 32-bit grey from the smallest of 0..1 (float only),
    0..255 and 0..65535 that holds it.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(MODES[channels])


def cover(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scale until the shorter side fits, then cut out the centre; antialiased, exact on a picture of that size."""
    if image.size == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
    box = (left, top, left + scale * width, top + scale * height)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)


@dataclass(frozen=True)
class Preprocessing:
    """Picture -> normalised tensor of a fixed size.

    Attributes:
        img_size: Height and width of the result in pixels.
        channels: 1 (grey) or 3 (RGB).
        mean: Per channel, of values in 0..1.
        std: Per channel, of values in 0..1.
    """

    img_size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.channels not in MODES:
            raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {self.channels}")
        if min(self.img_size) < 1:
            raise ValueError(f"img_size must be positive, got {self.img_size[0]}x{self.img_size[1]}")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"expected {self.channels} means and stds, got {len(self.mean)} and {len(self.std)}")

    def __call__(self, picture: Picture) -> Float[Tensor, "c h w"]:
        """Raises ValueError for what is not a readable picture, naming the file where there is one."""
        return self.normalise(torch.from_numpy(self.pixels(picture)[None]))[0]

    def pixels(self, picture: Picture) -> UInt8[np.ndarray, "h w c"]:
        """Decode, convert and fit a file, a PIL picture, or an array (h w), (h w 1), (h w 3) or (h w 4)."""
        height, width = self.img_size
        if isinstance(picture, np.ndarray):
            if picture.dtype == np.uint8 and picture.shape == (height, width, self.channels):
                return picture
            picture = _from_array(picture)
        if isinstance(picture, Image.Image):
            _check_shape(*picture.size)
            image = standard(picture, self.channels)
        else:
            image = decode(picture, self.channels)
        return np.array(cover(image, height, width)).reshape(height, width, self.channels)

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
        return cls((int(height), int(width)), int(values["channels"]), tuple(values["mean"]), tuple(values["std"]))


def _check_shape(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"expected sides of at least {MIN_SIDE} pixels, at most 1:{MAX_ASPECT}, got {width} wide and {height} high"
        )


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        return Image.fromarray(array)
    if array.ndim == 2 and array.dtype.kind in "uif":
        return _eight_bits(array)
    raise ValueError(
        f"expected a uint8 array (h w), (h w 1), (h w 3) or (h w 4), or another number type for grey,"
        f" got {array.dtype} {array.shape}"
    )


def _eight_bits(grey: np.ndarray) -> Image.Image:
    """Linear, and the same for every picture of a kind: never stretched to the picture's own extremes."""
    low, high = float(grey.min()), float(grey.max())
    scales = (
        (65535.0,)
        if grey.dtype.itemsize == 2
        else (1.0, 255.0, 65535.0)
        if grey.dtype.kind == "f"
        else (255.0, 65535.0)
    )
    full = next((scale for scale in scales if high <= scale), None)
    if full is None or not low >= 0:
        raise ValueError(f"expected grey values within 0..65535, got {low:g}..{high:g}")
    return Image.fromarray(np.rint(grey.astype(np.float64) * (255 / full)).astype(np.uint8))
