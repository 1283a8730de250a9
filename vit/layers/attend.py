"""Projections and heads around any mechanism."""

from collections.abc import Callable, Sequence
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vit.attention import MechanismFactory, Projections, Softmax
from vit.attention.numerics import exact_sums, widen
from vit.checks import require_at_least
from vit.layers.norm import NormFactory
from vit.layers.positions import RotaryFactory
from vit.tokens import Grid, Layout

MixerFactory = Callable[[int, Grid], nn.Module]
"""(dim, grid) -> a mixer, called ``(tokens (b n c), layout) -> (b n c)``."""


@final
class SelfAttention(nn.Module):
    """Project tokens to queries, keys and values, mix with a mechanism, join the heads and project back.

    Only the projections that the mechanism names in ``inputs`` exist, twice if it wants a ``second`` set; they share
    one matrix, ``qkv``.

    Args:
        dim: channels in and out.
        grid: sizes the mechanism's parameters.
        num_heads: heads.
        head_dim: width of queries and keys, dim / num_heads when None.
        value_dim: width of values, head_dim when None.
        qkv_bias: bias on the projections.
        qk_norm: norm on queries and keys per head (Henry et al. 2020), None for none.
        rotary: rotary positions on queries and keys, None for none.
        proj_drop: dropout on the output.
        mechanism: what mixes.

    Raises:
        ValueError: ``dim`` is not divisible by ``num_heads`` and no ``head_dim`` is given, or a width or
            ``num_heads`` is below 1.
    """

    def __init__(
        self,
        dim: int,
        grid: Grid,
        num_heads: int = 3,
        head_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        qk_norm: NormFactory | None = None,
        rotary: RotaryFactory | None = None,
        proj_drop: float = 0.0,
        mechanism: MechanismFactory = Softmax,
    ) -> None:
        super().__init__()
        head_dim = head_width(dim, num_heads, head_dim, ": change one or set head_dim")
        value_dim = require_at_least(1, head_dim if value_dim is None else value_dim, "value_dim")
        self.num_heads = num_heads
        self.mechanism = mechanism(num_heads, head_dim, grid)
        widths = {"q": head_dim, "k": head_dim, "v": value_dim}
        self.sets = 2 if self.mechanism.second else 1
        self.widths = [num_heads * widths[name] for name in self.mechanism.inputs] * self.sets
        self.qkv = nn.Linear(dim, sum(self.widths), bias=qkv_bias)
        self.q_norm = nn.Identity() if qk_norm is None else qk_norm(head_dim)
        self.k_norm = nn.Identity() if qk_norm is None else qk_norm(head_dim)
        self.rotary = None if rotary is None else rotary(head_dim, grid)
        self.proj = nn.Linear(num_heads * value_dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        return self._mixed(self.project_sets(x, layout), layout)

    def with_row(
        self, x: Float[Tensor, "b n c"], layout: Layout, token: int
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b h n"]]:
        """The output, and how much ``token`` takes from each token: its row of the mechanism's exact matrix.

        A mechanism is linear in its values, so identity columns under that one query return the row, for n^2
        multiply-adds a head; as in evaluation, whatever the mode, in float32 or better, and without a gradient. A
        mechanism to which one query is another sequence, treated otherwise, gives another row: `TopKBlock` finds such
        by trying.

        Raises:
            ValueError: the mechanism needs as many queries as keys, or a second set of projections.
        """
        sets = self.project_sets(x, layout)
        return self._mixed(sets, layout), self._row(sets, layout, token)

    def _mixed(self, sets: Sequence[Projections], layout: Layout) -> Float[Tensor, "b n c"]:
        first, *second = sets
        mixed = self.mechanism(*first, layout, *second)
        return self.proj_drop(self.proj(rearrange(mixed, "b h n e -> b n (h e)")))

    @torch.no_grad()
    def _row(self, sets: Sequence[Projections], layout: Layout, token: int) -> Float[Tensor, "b h n"]:
        (q, k, v), name = sets[0], type(self.mechanism).__name__
        if q is None or k is None or self.mechanism.second:
            raise ValueError(f"the attention of one token is asked for, but {name} does not mix one query alone")
        training, columns = self.mechanism.training, []
        self.mechanism.eval()  # no dropout, and no buffer moves: the row of what has been mixed
        try:
            with exact_sums(v):
                query, keys = widen(q[:, :, token : token + 1], k)
                for some in torch.eye(v.shape[2], dtype=keys.dtype, device=v.device).split(v.shape[3], dim=1):
                    values = some.expand(*v.shape[:2], -1, -1)
                    # Not a call of the module: hooks record how tokens mix, and this mixes none.
                    columns.append(self.mechanism.forward(query, keys, values, layout)[:, :, 0])
        finally:
            self.mechanism.train(training)
        return torch.cat(columns, dim=-1)

    def project(self, x: Float[Tensor, "b n c"], layout: Layout) -> Projections:
        """Queries, keys and values as the mechanism sees them; the first set where it wants two."""
        return self.project_sets(x, layout)[0]

    def project_sets(self, x: Float[Tensor, "b n c"], layout: Layout) -> list[Projections]:
        """One set or two, as the mechanism wants."""
        parts = self.qkv(x).split(self.widths, dim=-1)
        each = len(parts) // self.sets
        return [self._set(parts[i * each : (i + 1) * each], layout) for i in range(self.sets)]

    def _set(self, parts: Sequence[Tensor], layout: Layout) -> Projections:
        heads = {
            name: rearrange(part, "b n (h d) -> b h n d", h=self.num_heads)
            for name, part in zip(self.mechanism.inputs, parts, strict=True)
        }
        q, k = heads.get("q"), heads.get("k")
        if q is not None:
            q = self._place(self.q_norm(q), layout)
        if k is not None:
            k = self._place(self.k_norm(k), layout)
        return Projections(q, k, heads["v"])

    def _place(self, x: Float[Tensor, "b h n d"], layout: Layout) -> Float[Tensor, "b h n d"]:
        return x if self.rotary is None else self.rotary(x, layout)


@final
class CrossAttention(nn.Module):
    """Queries from one sequence, keys and values from another: (b m c), (b n c) -> (b m c).  Vaswani et al. 2017.

    Args:
        dim: channels of both sequences.
        grid: of the keys' sequence, sizes the mechanism's parameters.
        num_heads: heads, of width dim / num_heads.
        qkv_bias: bias on the projections.
        mechanism: what mixes; one that needs as many queries as keys raises when called.

    Raises:
        ValueError: ``dim`` is not divisible by ``num_heads``.
    """

    def __init__(
        self, dim: int, grid: Grid, num_heads: int = 3, qkv_bias: bool = True, mechanism: MechanismFactory = Softmax
    ) -> None:
        super().__init__()
        head_dim = head_width(dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.mechanism = mechanism(num_heads, head_dim, grid)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, queries: Float[Tensor, "b m c"], tokens: Float[Tensor, "b n c"], layout: Layout
    ) -> Float[Tensor, "b m c"]:
        q = rearrange(self.q(queries), "b m (h d) -> b h m d", h=self.num_heads)
        k, v = rearrange(self.kv(tokens), "b n (two h d) -> two b h n d", two=2, h=self.num_heads)
        return self.proj(rearrange(self.mechanism(q, k, v, layout), "b h m e -> b m (h e)"))


def head_width(dim: int, num_heads: int, given: int | None = None, advice: str = "") -> int:
    """Channels of each head: ``given``, or those of ``dim`` shared out.

    Raises:
        ValueError: they cannot be shared out evenly, or there are none.
    """
    require_at_least(1, num_heads, "num_heads")
    if given is None and dim % num_heads:
        raise ValueError(f"embed_dim {dim} is not divisible by num_heads {num_heads}{advice}")
    return require_at_least(1, dim // num_heads if given is None else given, "head_dim")
