"""Where tokens lie and who may see whom: the one truth that mechanisms, mixers, blocks and pools read.

Axis letters, everywhere in the project: b batch, c channels, h heads, n tokens, d query width, e value width.
A sequence is the prefix tokens (class, registers, ...) first, then the patches in raster order.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


class Grid(NamedTuple):
    """Patch grid and named prefix tokens: ``Grid(14, 14, prefix=("cls", "reg", "reg"))``."""

    height: int
    width: int
    prefix: tuple[str, ...] = ()

    @property
    def num_prefix(self) -> int:
        return len(self.prefix)

    @property
    def patches(self) -> int:
        return self.height * self.width

    @property
    def tokens(self) -> int:
        return self.num_prefix + self.patches


@dataclass(frozen=True, eq=False)
class Mask:
    """Who may be attended to; conditions that are set all have to hold.

    Attributes:
        keys: (b n), True takes part, False is padding.
        causal: token i sees tokens j <= i, prefix tokens being the first of the sequence.
        prefix: (b,), with ``causal``: the first ``prefix[b]`` tokens see each other both ways.
        pairs: (b n n) or (1 n n), True where query i may see key j.

    Raises:
        ValueError: ``keys`` or ``pairs`` are not bool, or a ``prefix`` comes without ``causal``.
    """

    keys: Bool[Tensor, "b n"] | None = None
    causal: bool = False
    prefix: Int[Tensor, " b"] | None = None
    pairs: Bool[Tensor, "p n n"] | None = None

    def __post_init__(self) -> None:
        for name in ("keys", "pairs"):
            value = getattr(self, name)
            if value is not None and value.dtype != torch.bool:
                raise ValueError(f"mask {name} must be bool, True takes part; got {value.dtype}")
        if self.prefix is not None and not self.causal:
            raise ValueError("a mask prefix needs causal=True: without it every token is seen both ways already")

    def allowed(self, n: int, device: torch.device) -> Bool[Tensor, "p n n"]:
        """The dense form: (b or 1, n, n), True where query i may see key j."""
        everyone = torch.arange(n, device=device)
        return self.between(everyone, everyone).expand(-1, n, n)

    def between(self, queries: Int[Tensor, "*s n"], keys: Int[Tensor, "*t m"]) -> Bool[Tensor, "p *tokens m"]:
        """`allowed` at some tokens only: (b or 1, ..., n, m), True where token queries[i] may see token keys[j]."""
        i, j = queries[..., :, None], keys[..., None, :]
        i, j = (x[(None,) * (max(i.dim(), j.dim()) - x.dim())] for x in (i, j))
        allowed = torch.ones_like(j, dtype=torch.bool)[None]
        if self.causal:
            allowed = (j <= i)[None]
        if self.prefix is not None:
            length = self.prefix.view(-1, *(1,) * i.dim())
            allowed = allowed | ((i < length) & (j < length))
        if self.pairs is not None:
            allowed = allowed & self.pairs[:, i, j]
        if self.keys is not None:
            allowed = allowed & self.keys[:, j]
        return allowed


@dataclass(frozen=True, eq=False)
class Layout:
    """The tokens of one call. The grid given to a constructor only sizes parameters; this one is the truth.

    Attributes:
        grid: patch grid and prefix of this call.
        mask: who may be attended to, None for everyone.
        index: (b n) raster positions of the kept patches, None for all in order.
        sizes: (b 2) patch rows and columns of each picture where pictures of different sizes share the grid, see
            `padded`; None where all fill it.

    Raises:
        ValueError: the mask is not as long as the sequence, or sizes come without a mask that leaves the padding out.
    """

    grid: Grid
    mask: Mask | None = None
    index: Int[Tensor, "b n"] | None = None
    sizes: Int[Tensor, "b 2"] | None = None

    def __post_init__(self) -> None:
        if self.sizes is not None and self.keys is None:
            raise ValueError("sizes say that there is padding: expected a mask whose keys leave it out, got none")
        for name in ("keys", "pairs"):
            value = None if self.mask is None else getattr(self.mask, name)
            if value is not None and value.shape[-1] != self.tokens:
                raise ValueError(f"mask {name} cover {value.shape[-1]} tokens, but the sequence has {self.tokens}")

    @classmethod
    def padded(cls, grid: Grid, sizes: Int[Tensor, "b 2"]) -> "Layout":
        """Pictures of ``sizes`` (patch rows and columns) at the top left of one grid: what lies beyond is padding."""
        rows, columns = cls(grid).coordinates(sizes.device).unbind(-1)
        inside = (rows < sizes[:, :1]) & (columns < sizes[:, 1:])
        return cls(grid, Mask(keys=F.pad(inside, (grid.num_prefix, 0), value=True)), sizes=sizes)

    @property
    def tokens(self) -> int:
        """Tokens in the sequence, prefix included."""
        return self.grid.tokens if self.index is None else self.grid.num_prefix + self.index.shape[1]

    @property
    def keys(self) -> Bool[Tensor, "b n"] | None:
        """Which tokens take part, the others being padding; None for all."""
        return None if self.mask is None else self.mask.keys

    @property
    def patch_keys(self) -> Bool[Tensor, "b n"] | None:
        """Which patch tokens take part; None for all."""
        return None if self.keys is None else self.keys[:, self.grid.num_prefix :]

    def coordinates(self, device: torch.device) -> Float[Tensor, "p n 2"]:
        """Row and column of each patch token, in patches: (b or 1, n, 2)."""
        raster = torch.arange(self.grid.patches, device=device)[None] if self.index is None else self.index
        return torch.stack((raster // self.grid.width, raster % self.grid.width), dim=-1).float()

    def keep(self, index: Int[Tensor, "b n"]) -> "Layout":
        """The layout after keeping only the patch tokens at ``index`` (b n), counted among the present patches."""
        raster = index if self.index is None else self.index.gather(1, index)
        if self.mask is None:
            return replace(self, index=raster)
        if self.mask.prefix is not None:
            raise ValueError("patches cannot be dropped under a causal mask with a prefix length")
        front = torch.arange(self.grid.num_prefix, device=index.device).expand(len(index), -1)
        kept = torch.cat((front, index + self.grid.num_prefix), dim=1)
        keys, pairs = self.mask.keys, self.mask.pairs
        if keys is not None:
            keys = keys.expand(len(kept), -1).gather(1, kept)
        if pairs is not None:
            rows = pairs.expand(len(kept), -1, -1).gather(1, kept[:, :, None].expand(-1, -1, pairs.shape[2]))
            pairs = rows.gather(2, kept[:, None, :].expand(-1, kept.shape[1], -1))
        return replace(self, index=raster, mask=replace(self.mask, keys=keys, pairs=pairs))
