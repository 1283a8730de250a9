"""Pictures without end: textured objects before a background, each a pure function of (task, seed, index).

Three tasks ask for different abilities: the texture of a surface, which any small patch of it tells; an outline, at
which single corners hint and which the whole object tells; and how far the stripes of one object are turned against
those of another, distant one.  There one object alone tells nothing, and which two directions are present, without
where, tells at most three pictures in four.  Everything else is drawn independently of the class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Literal, get_args

import numpy as np
from einops import rearrange, repeat
from jaxtyping import Float, Float32, Int64, UInt8, UInt64

from vit.data.order import keys
from vit.data.shapes import OUTLINES, REACH, TEXTURES, Field, Objects, column, depth, frame, grain

Task = Literal["texture", "shape", "relation"]
CLASSES = {
    "texture": TEXTURES,
    "shape": OUTLINES,
    "relation": ("parallel", "turned by 45", "turned by 90", "turned by 135"),  # degrees, the right against the left
}
VERSION = 2  # of the generator: one more whenever any pixel or label changes
SIDE, KINDS, CHUNK = 32, 4, 64  # a chunk of pictures stays in the processor's cache
ORDERS = np.array(list(permutations(range(KINDS))))
LABELS, PICTURES, DRAWS = 3, 4, 5  # streams of keys, beside those of `order`
STRIPES, MIDDLE = 0, 1  # texture and background level of a pair: differences in direction stay easy to see
WOBBLE = 5  # of a pair's stripes to either side, in `TURNS`: 7 degrees
KNOTS = 5  # of the background's noise, per side
OF_PICTURE, OF_OBJECT, OF_PIXELS = 8 + KNOTS * KNOTS, 17, 128  # draws, and where those of the pixels begin
LEVELS = np.array([0.15, 0.5, 0.85])  # brightness of background and of an object's two colours, in any order
HUE = 0.4  # how far colours go from grey, at most
ANGLES = 2 * np.pi * np.arange(256) / 256
TURNS = np.round(np.stack([np.cos(ANGLES), np.sin(ANGLES)], -1), 6)  # rounded: libraries differ in the last bit
RADII, PERIOD = ((6.5, 9.0), (4.5, 5.2)), ((3.6, 5.0), (3.0, 3.8))  # in pixels, of one object and of two
NOISE = 0.08  # of a pixel, from end to end


@dataclass(frozen=True)
class Scenes:
    """The first ``count`` pictures of a stream, with their labels: nothing is stored, any may be asked for.

    Args:
        task: What the class is.
        seed: Of the stream; streams share no picture.
        count: Number of pictures.

    Raises:
        ValueError: no such task, or a count below 0.
    """

    task: Task
    seed: int
    count: int

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise ValueError(f"task must be one of {', '.join(get_args(Task))}, got {self.task!r}")
        if self.count < 0:
            raise ValueError(f"count must not be negative, got {self.count}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every picture."""
        return SIDE, SIDE

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        """Raises IndexError beyond the end, as a list does; negative ones count from there."""
        if not -self.count <= index < self.count:
            raise IndexError(f"expected an index below {self.count}, got {index}")
        return self.pictures(np.array([index % self.count]))[0]

    @cached_property
    def labels(self) -> Int64[np.ndarray, " count"]:
        """Each class once in every four consecutive pictures."""
        return self._labels(np.arange(self.count))

    def pictures(self, indices: Sequence[int] | np.ndarray) -> UInt8[np.ndarray, "n h w c"]:
        """Pictures by index, the same bits whichever are asked for together."""
        indices = self._checked(indices)
        found = np.empty((len(indices), SIDE, SIDE, 3), np.uint8)
        for start in range(0, len(indices), CHUNK):
            found[start : start + CHUNK] = self._draw(indices[start : start + CHUNK])
        return found

    def masks(self, indices: Sequence[int] | np.ndarray) -> UInt8[np.ndarray, "n h w"]:
        """Where the objects are: 0 background, 1 the only or left object, 2 the right one."""
        indices = self._checked(indices)
        objects = self.objects(indices)
        parts = len(objects.shape) // max(len(indices), 1) or 1
        inside = (depth(objects, SIDE, SIDE // parts) > 0).astype(np.uint8)
        inside = rearrange(inside, "(n m) (h w) -> n h m w", m=parts, h=SIDE)
        return rearrange(inside * np.arange(1, parts + 1, dtype=np.uint8)[:, None], "n h m w -> n h (m w)")

    def objects(self, indices: Sequence[int] | np.ndarray) -> Objects:
        """What is drawn in each picture: one row per picture, or two for `relation`."""
        indices = self._checked(indices)
        return self._objects(indices, *self._uniforms(indices)[1:])

    def _checked(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        indices = np.asarray(indices, np.int64)
        if indices.size and not (indices.min() >= 0 and indices.max() < self.count):
            raise IndexError(f"expected indices in 0..{self.count - 1}, got {indices.min()}..{indices.max()}")
        return indices

    def _labels(self, indices: np.ndarray) -> np.ndarray:
        blocks = keys(self.seed, self._number, indices // KINDS, LABELS)
        return ORDERS[(blocks % np.uint64(len(ORDERS))).astype(np.int64), indices % KINDS]

    @property
    def _number(self) -> int:
        return get_args(Task).index(self.task)

    @property
    def _parts(self) -> int:
        return 2 if self.task == "relation" else 1

    def _uniforms(self, indices: np.ndarray) -> tuple[UInt64[np.ndarray, " n"], np.ndarray, np.ndarray]:
        """The pictures' keys, and numbers in 0..1 for picture (n k) and objects (n m k)."""
        own = keys(self.seed, self._number, indices, PICTURES)
        bits = keys(0, 0, own[:, None] + np.arange(OF_PICTURE + self._parts * OF_OBJECT, dtype=np.uint64), DRAWS)
        draws = (bits >> np.uint64(11)) * 2.0**-53
        return own, draws[:, :OF_PICTURE], rearrange(draws[:, OF_PICTURE:], "n (m k) -> n m k", m=self._parts)

    def _objects(self, indices: np.ndarray, scene: np.ndarray, draws: np.ndarray) -> Objects:
        shape, pattern = rearrange(_whole(draws[..., :2], KINDS), "n m k -> k n m")
        turned = _whole(draws[..., 14], len(TURNS))
        labels = self._labels(indices)
        if self.task == "texture":
            pattern[:, 0] = labels
        elif self.task == "shape":
            shape[:, 0] = labels
        else:
            eighths = np.stack([pattern[:, 0], pattern[:, 0] + labels], 1)  # of a turn, four of them being none
            turned = eighths % 4 * (len(TURNS) // 8) + _whole(draws[..., 14], 2 * WOBBLE + 1) - WOBBLE
            pattern = np.full_like(pattern, STRIPES)
        low, high = RADII[self._parts - 1]
        radius = low + (high - low) * draws[..., 2]
        low, high = PERIOD[self._parts - 1]
        period = low + (high - low) * draws[..., 3]
        level, swap = self._level(scene)[:, None], _whole(draws[..., 4], 2)
        first, second = (
            _colours((level + 1 + swap) % 3, draws[..., 5:8]),
            _colours((level + 2 - swap) % 3, draws[..., 8:11]),
        )
        rows = (
            *(shape, pattern, _places(radius, draws[..., 11:13]), radius, TURNS[_whole(draws[..., 13], len(TURNS))]),
            *(period, TURNS[turned % len(TURNS)], draws[..., 15:17], np.stack([first, second], -2)),
        )
        return Objects(*(rearrange(row, "n m ... -> (n m) ...") for row in rows))

    def _level(self, scene: np.ndarray) -> Int64[np.ndarray, " n"]:
        """Of the background's brightness."""
        return np.full(len(scene), MIDDLE) if self.task == "relation" else _whole(scene[:, 0], len(LEVELS))

    def _draw(self, indices: np.ndarray) -> UInt8[np.ndarray, "n h w c"]:
        own, scene, draws = self._uniforms(indices)
        objects, width = self._objects(indices, scene, draws), SIDE // self._parts
        cover = np.clip(depth(objects, SIDE, width) + np.float32(0.5), 0, 1)
        second = np.clip(grain(objects, SIDE, width) + np.float32(0.5), 0, 1)
        back = rearrange(_background(scene), "n h (m w) -> (n m) (h w)", m=self._parts)
        level = self._level(scene)
        ground = [repeat(_colours(level, scene[:, at : at + 3]), "n c -> (n m) c", m=self._parts) for at in (1, 4)]
        noise = _noise(own, self._parts)
        planes = np.empty((3, *cover.shape), np.uint8)
        for c in range(3):
            plane = _mix(ground[0][:, c], ground[1][:, c], back)
            plane += cover * (_mix(objects.colours[:, 0, c], objects.colours[:, 1, c], second) - plane)
            plane += noise[..., c] * np.float32(NOISE / 65535) - np.float32(NOISE / 2)
            planes[c] = np.rint(np.clip(plane, 0, 1) * np.float32(255))
        return rearrange(planes, "c (n m) (h w) -> n h (m w) c", m=self._parts, h=SIDE)


def _whole(uniform: np.ndarray, count: int | np.ndarray) -> Int64[np.ndarray, "..."]:
    return (uniform * count).astype(np.int64)


def _colours(level: np.ndarray, draws: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 3"]:
    """RGB of a level of brightness and any hue."""
    red, green, blue = np.moveaxis(draws, -1, 0)
    hue = draws - ((red + green + blue) / 3)[..., None]
    return LEVELS[level][..., None] + HUE * hue


def _places(radius: Float[np.ndarray, "n m"], draws: Float[np.ndarray, "n m 2"]) -> Float[np.ndarray, "n m 2"]:
    """Centres that depend on the size alone: the whole object lies inside, of two each within its own half."""
    free = SIDE / 2 - REACH * radius
    y = SIDE / 2 + free * (2 * draws[..., 1] - 1)
    if radius.shape[1] == 1:
        return np.stack([SIDE / 2 + free * (2 * draws[..., 0] - 1), y], -1)
    x = REACH * radius + (SIDE / 2 - 2 * REACH * radius).clip(0) * draws[..., 0]  # from the middle of the picture
    return np.stack([np.stack([SIDE / 2 - x[:, 0], x[:, 1]], 1), y], -1)


def _background(scene: Float[np.ndarray, "n k"]) -> Float32[np.ndarray, "n h w"]:
    """Half a gradient in any direction and half smooth noise, in 0..1."""
    turn = TURNS[_whole(scene[:, 7], len(TURNS))]
    x, _ = frame(np.full((len(scene), 2), SIDE / 2), turn, np.full(len(scene), SIDE * 2.0**0.5), SIDE, SIDE)
    knots = rearrange(scene[:, -KNOTS * KNOTS :].astype(np.float32), "n (h w) -> n h w", h=KNOTS)
    at = np.arange(SIDE, dtype=np.float32) * np.float32((KNOTS - 1) / SIDE)
    low, part = at.astype(np.int64), at - np.floor(at)
    rows = knots[:, low] + part[:, None] * (knots[:, low + 1] - knots[:, low])
    smooth = rows[..., low] + part * (rows[..., low + 1] - rows[..., low])
    return np.float32(0.5) * (rearrange(x, "n (h w) -> n h w", h=SIDE) + np.float32(0.5) + smooth)


def _noise(own: UInt64[np.ndarray, " n"], parts: int) -> np.ndarray:
    """Three numbers of 16 bits for every pixel ((n m) (h w) 4)."""
    bits = keys(0, 0, own[:, None] + np.arange(OF_PIXELS, OF_PIXELS + SIDE * SIDE, dtype=np.uint64), DRAWS)
    return rearrange(bits.astype("<u8", copy=False).view("<u2"), "n (m p c) -> (n m) p c", m=parts, c=4)


def _mix(first: np.ndarray, second: np.ndarray, share: Field) -> Field:
    return column(first) + column(second - first) * share
