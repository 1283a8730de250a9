"""What the numbers that a picture stores stand for: how many bits they have, which of them are black and white."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin, TiffImagePlugin

Range = tuple[float, float]  # the values that become black and white
MIN_IS_WHITE, BY_PLANES = 0, 2  # what the tags of a TIFF say


def check_stored(image: Image.Image, value_range: Range | None) -> None:
    """Raises ValueError for a file of which Pillow would silently read something else than its values.

    It reads the first bands of a TIFF and drops those it has no name for, of several bands it keeps 8 bits of 16, of
    grey beyond 8 bits it does not ask whether 0 is white, and uncompressed planes it reads as those of 8 bits.
    """
    bits, bands = _bits(image), image.getbands()
    if len(bands) > 1 and bits > 8 and value_range not in (None, (0, 2**bits - 1)):
        raise ValueError(
            f"expected one band of {bits} bits where a value_range is given, got {len(bands)} ({image.mode}), which are"
            f" read from 0..{2**bits - 1} alone: leave out --data.value_range, or save them as .npy"
        )
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    samples = image.tag_v2.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
    if samples > len(bands):
        raise ValueError(f"expected grey, RGB or CMYK, with alpha or not; got {samples} bands: save them as .npy")
    planes = image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == BY_PLANES
    plain = image.tag_v2.get(TiffImagePlugin.COMPRESSION, 1) == 1
    if planes and plain and (bits not in (1, 8) or _photometric(image) == MIN_IS_WHITE):
        raise ValueError(f"expected bands within each pixel, got planes of {bits} bits: save them as .npy")
    if is_wide(image) and _photometric(image) is None:
        raise ValueError(f"expected a TIFF of {bits} bits to say whether its lowest value is black: save it as .npy")
    if _photometric(image) == MIN_IS_WHITE and image.mode == "F":
        raise ValueError("expected floats of which the lowest is black, in this TIFF it is white: save it as .npy")


def is_wide(image: Image.Image) -> bool:
    """Whether it is grey of more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def shades(image: Image.Image, upright: Image.Image, value_range: Range | None) -> UInt8[np.ndarray, "h w"]:
    """8 bits of a wide picture, white first where the file says that its lowest value is white (X-ray scans).

    Args:
        image: As it was opened.
        upright: The same, turned: it is no file any more and tells nothing of what was stored.
        value_range: See `Preprocessing`; 0..4095 of 12 bits, which Pillow gives out as 16.
    """
    own = (0.0, 4095.0) if _bits(image) == 12 else None
    pixels = eight_bits(np.asarray(upright), value_range or own)
    return 255 - pixels if _photometric(image) == MIN_IS_WHITE else pixels


def eight_bits(values: np.ndarray, value_range: Range | None) -> UInt8[np.ndarray, "..."]:
    """Linear, and the same for every picture of a kind: never stretched to its own values, nor guessed from them.

    Raises:
        ValueError: a value beyond the range, or whole numbers of more than 16 bits without a range.
    """
    kind = values.dtype
    if kind == np.uint8:
        return values
    hint = "--data.value_range [0,255] (or [0,4095], ...) names the values of black and white"
    if value_range is None and kind.kind != "f" and kind.itemsize > 2:
        raise ValueError(f"expected a range for {kind} values, which could be anything: {hint}")
    black, white = value_range or (0.0, 1.0 if kind.kind == "f" else 2.0 ** (8 * kind.itemsize) - 1)
    low, high = float(values.min()), float(values.max())
    if not black <= low <= high <= white:
        raise ValueError(f"expected {kind} values within {black:g}..{white:g}, got {low:g}..{high:g}: {hint}")
    return np.rint((values.astype(np.float64) - black) * (255 / (white - black))).astype(np.uint8)


def _bits(image: Image.Image) -> int:
    """Of a stored value: 8 where the file cannot tell, as that of a PNG which is in memory already."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if isinstance(image, PngImagePlugin.PngImageFile) and image.tile:
        return 16 if str(image.tile[0].args).endswith(";16B") else 8
    return 8


def _photometric(image: Image.Image) -> int | None:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
    return None
