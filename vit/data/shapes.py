"""Textured objects as fields over the plane: outlines and textures, positive inside, zero on the edge, of unit slope.

Only arithmetic that IEEE 754 rounds exactly (+ - * / sqrt, floor, min, max), so the bits are the same on every machine.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64

Field = Float32[np.ndarray, "n p"]
OUTLINES = ("circle", "square", "triangle", "cross")
TEXTURES = ("stripes", "checks", "dots", "zigzag")
PERIODS = np.array([1, 2, 1.25, 1.41], np.float32)  # relative; makes edges per area alike, so that no histogram tells
HALF_SIDE = math.sqrt(math.pi) / 2  # of the square with the area of the unit disc, as all outlines have
INRADIUS = math.sqrt(math.pi / math.sqrt(27))
ARM = math.sqrt(9 * math.pi / 20)  # the cross is made of five squares, 2/3 of this wide
REACH = 2 * INRADIUS  # the farthest that any outline gets from its centre: the corner of the triangle
DOT = math.sqrt(1 / (2 * math.pi))  # radius of dots that cover half the plane


class Objects(NamedTuple):
    """One row per object; pictures with two have them in neighbouring rows, left and right.

    Attributes:
        shape: Number in `OUTLINES`.
        texture: Number in `TEXTURES`.
        place: Centre (x, y) in pixels within the object's part of the picture.
        radius: Of the disc of the same area, in pixels.
        turn: Direction (cos, sin) of the outline.
        period: Of its texture, in pixels.
        grain: Direction (cos, sin) of the texture.
        phase: Of the texture (x, y) in periods.
        colours: Where the texture is negative and positive, RGB in 0..1.
    """

    shape: Int64[np.ndarray, " n"]
    texture: Int64[np.ndarray, " n"]
    place: Float[np.ndarray, "n 2"]
    radius: Float[np.ndarray, " n"]
    turn: Float[np.ndarray, "n 2"]
    period: Float[np.ndarray, " n"]
    grain: Float[np.ndarray, "n 2"]
    phase: Float[np.ndarray, "n 2"]
    colours: Float[np.ndarray, "n 2 3"]


def frame(place: np.ndarray, turn: np.ndarray, unit: np.ndarray, height: int, width: int) -> tuple[Field, Field]:
    """Pixel centres in turned coordinates around a place."""
    y, x = (part.reshape(1, -1).astype(np.float32) + np.float32(0.5) for part in np.mgrid[:height, :width])
    x, y = x - column(place[:, 0]), y - column(place[:, 1])
    cos, sin = column(turn[:, 0] / unit), column(turn[:, 1] / unit)
    return cos * x + sin * y, cos * y - sin * x


def depth(objects: Objects, height: int, width: int) -> Field:
    """Pixels to the edge of each object, positive inside, on its part of the picture."""
    x, y = frame(objects.place, objects.turn, objects.radius, height, width)
    return _by_kind(objects.shape, x, y, (_circle, _square, _triangle, _cross)) * column(objects.radius)


def grain(objects: Objects, height: int, width: int) -> Field:
    """Pixels to the edge between an object's two colours."""
    period = objects.period * PERIODS[objects.texture]
    x, y = frame(objects.place, objects.grain, period, height, width)
    x, y = x + column(objects.phase[:, 0]), y + column(objects.phase[:, 1])
    return _by_kind(objects.texture, x, y, (_stripes, _checks, _dots, _zigzag)) * column(period)


def column(values: np.ndarray) -> Float32[np.ndarray, "n 1"]:
    return values.astype(np.float32)[:, None]


def _by_kind(kinds, x: Field, y: Field, draw: tuple) -> Field:
    field = np.empty_like(x)
    for kind, function in enumerate(draw):
        (rows,) = np.nonzero(kinds == kind)
        field[rows] = function(x[rows], y[rows])
    return field


def _circle(x: Field, y: Field) -> Field:
    return 1 - np.sqrt(x * x + y * y)


def _square(x: Field, y: Field) -> Field:
    return HALF_SIDE - np.maximum(np.abs(x), np.abs(y))


def _triangle(x: Field, y: Field) -> Field:
    return INRADIUS - np.maximum(-y, math.sqrt(0.75) * np.abs(x) + 0.5 * y)


def _cross(x: Field, y: Field) -> Field:
    x, y = np.abs(x), np.abs(y)
    return np.minimum(ARM - np.maximum(x, y), ARM / 3 - np.minimum(x, y))


def _wave(x: Field) -> Field:
    """A triangle wave, -0.25 to 0.25."""
    return np.abs(x - np.floor(x) - 0.5) - 0.25


def _stripes(x: Field, y: Field) -> Field:
    return _wave(x)


def _checks(x: Field, y: Field) -> Field:
    x, y = _wave(x), _wave(y)
    return np.copysign(np.minimum(np.abs(x), np.abs(y)), x * y)


def _dots(x: Field, y: Field) -> Field:
    return DOT + _circle(x - np.floor(x) - 0.5, y - np.floor(y) - 0.5) - 1


def _zigzag(x: Field, y: Field) -> Field:
    return math.sqrt(0.5) * _wave(x + _wave(y))
