"""Linear attention, in parallel and as a recurrent net."""

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from vit.attention.kernels import kernel_attention
from vit.attention.mechanism import Mechanism
from vit.attention.numerics import exact_sums, widen
from vit.checks import refuse_pairs
from vit.tokens import Grid, Layout


class LinearState(NamedTuple):
    """All that the recurrent form remembers, however many tokens it has read."""

    sums: Float[Tensor, "b h d e"]
    total: Float[Tensor, "b h d"]


@final
class Linear(Mechanism):
    """phi(q_i) S / phi(q_i) . z, S = sum_j phi(k_j) v_j^T, z = sum_j phi(k_j).  Katharopoulos et al. 2020, eq. 5.

    phi = elu + 1 (eq. 7). Time n d^2, memory n d. Causal order in chunks, or token by token with `step`, which is an
    RNN (eq. 16 to 20). The matrix has rank d at most. No 1 / sqrt(d): phi is no exponential. Sums are in float32.

    Raises:
        ValueError: a mask of pairs, or a causal mask between two sequences.
    """

    def __init__(self, heads: int, head_dim: int, grid: Grid) -> None:
        super().__init__()

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        refuse_pairs(self, layout, "sums keys before it meets a query")
        with exact_sums(v):
            wide_q, wide_k, wide_v = widen(q, k, v)
            return kernel_attention(_phi(wide_q), _phi(wide_k), wide_v, layout).to(v.dtype)

    def step(
        self,
        q: Float[Tensor, "b h d"],
        k: Float[Tensor, "b h d"],
        v: Float[Tensor, "b h e"],
        state: LinearState | None = None,
    ) -> tuple[Float[Tensor, "b h e"], LinearState]:
        """The next token of a causal sequence: its output and the state after it. None stands before the first token.

        Raises:
            ValueError: a state in half precision, whose running sums would drift (78 % off after 4096 tokens).
        """
        with exact_sums(v):
            wide_q, wide_k, wide_v = widen(q, k, v)
            if state is None:
                zeros = torch.zeros_like(wide_k)
                state = LinearState(zeros[..., None] * wide_v[..., None, :], zeros)
            if state.sums.dtype.itemsize < 4 or state.total.dtype.itemsize < 4:
                raise ValueError(
                    f"the state of linear attention is a running sum: expected float32, got {state[0].dtype}"
                )
            key = _phi(wide_k)
            state = LinearState(state.sums + key[..., None] * wide_v[..., None, :], state.total + key)
            query = _phi(wide_q)[..., None, :]
            out = (query @ state.sums)[..., 0, :] / (query @ state.total[..., None])[..., 0]
            return out.to(v.dtype), state


def _phi(x: Tensor) -> Tensor:
    """elu + 1, written so that far below zero it stays above it (elu rounds to -1 there)."""
    return x.clamp(max=0).exp() + x.clamp(min=0)
