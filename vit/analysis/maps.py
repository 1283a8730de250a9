"""The exact attention matrix of any mechanism."""

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor

from vit.analysis.record import Recorded


@torch.no_grad()
def attention_matrix(recorded: Recorded) -> Float[Tensor, "b h n m"]:
    """A with ``out = A v``: row i says how much query i takes from each token, in float32 or better.

    A mechanism is linear in its values, so with q, k and layout frozen identity columns return the matrix itself, as
    many columns at a time as a value is wide. Rows need not sum to one, nor entries be positive: see `is_share`.
    Half-precision records are computed in float32, with a float32 copy of the mechanism's own parameters.

    Raises:
        ValueError: A v is not the recorded output: the mechanism is not linear in its values, or draws at random.
    """
    q, k, v, out = recorded.q, recorded.k, recorded.v, recorded.out
    dtype = torch.promote_types(v.dtype, torch.float32)
    q, k = (None if part is None else part.to(dtype) for part in (q, k))
    mechanism = deepcopy(recorded.mechanism).to(dtype).eval()
    batch, heads, tokens, width = v.shape
    identity = torch.eye(tokens, dtype=dtype, device=v.device)
    columns = []
    with torch.autocast(v.device.type, enabled=False):
        for block in identity.split(width, dim=1):
            probe = v.new_zeros(batch, heads, tokens, width, dtype=dtype)
            probe[..., : block.shape[1]] = block
            columns.append(mechanism(q, k, probe, recorded.layout)[..., : block.shape[1]])
    matrix = torch.cat(columns, dim=-1)
    _check(matrix @ v.to(dtype), out.to(dtype), 1e-3 if v.dtype == dtype else 0.1, type(mechanism).__name__)
    return matrix


def is_share(matrix: Float[Tensor, "b h n m"]) -> bool:
    """Whether weights are shares: none negative, rows summing to one, or to zero where nothing may be seen."""
    sums = matrix.sum(dim=-1)
    return bool((matrix >= 0).all() and ((sums == 0) | ((sums - 1).abs() < 1e-3)).all())


def _check(mixed: Tensor, out: Tensor, tolerance: float, name: str) -> None:
    error = (mixed - out).norm() / out.norm().clamp(min=torch.finfo(out.dtype).tiny)
    if error > tolerance:
        raise ValueError(
            f"{name} has no attention matrix: probed weights times values differ from its output by {error:.1%} "
            "(expected a mechanism that is linear in its values and the same at every call)"
        )
