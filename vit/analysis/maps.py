"""The exact attention matrix of any mechanism."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor

from vit.analysis.record import Recorded
from vit.attention import Mechanism, Projections
from vit.tokens import Layout


@torch.no_grad()
def attention_matrix(recorded: Recorded) -> Float[Tensor, "b h n m"]:
    """A with ``out = A v``: row i says how much query i takes from each token, in float32 or better.

    A mechanism is linear in its values, so with q, k and layout frozen identity columns return the matrix itself, as
    many columns at a time as a value is wide. Rows need not sum to one, nor entries be positive: see `is_share`. Of two
    sets of values each is probed alone; the matrix is the sum, what a query takes from a token either way.
    Half-precision records are computed in float32, with a float32 copy of the mechanism's own parameters.

    Raises:
        ValueError: A v is not the recorded output: the mechanism is not linear in its values, or draws at random.
    """
    dtype = torch.promote_types(recorded.v.dtype, torch.float32)
    sets = [_in(dtype, Projections(recorded.q, recorded.k, recorded.v))]
    if recorded.second is not None:
        sets.append(_in(dtype, recorded.second))
    mechanism = deepcopy(recorded.mechanism).to(dtype).eval()
    matrices = [_probe(mechanism, sets, number, recorded.layout) for number in range(len(sets))]
    mixed = torch.stack([matrix @ parts.v for matrix, parts in zip(matrices, sets, strict=True)]).sum(dim=0)
    _check(mixed, recorded.out.to(dtype), 1e-3 if recorded.v.dtype == dtype else 0.1, type(mechanism).__name__)
    return torch.stack(matrices).sum(dim=0)


def _probe(mechanism: Mechanism, sets: Sequence[Projections], number: int, layout: Layout) -> Float[Tensor, "b h n m"]:
    """The weights that the values of one set get: identity columns in it, zeros in the other."""
    tokens, width = sets[number].v.shape[2:]
    identity = torch.eye(tokens, dtype=sets[number].v.dtype, device=sets[number].v.device)
    columns = []
    with torch.autocast(identity.device.type, enabled=False):
        for block in identity.split(width, dim=1):
            probes = [parts._replace(v=torch.zeros_like(parts.v)) for parts in sets]
            probes[number].v[..., : block.shape[1]] = block
            first, *second = probes
            columns.append(mechanism(*first, layout, *second)[..., : block.shape[1]])
    return torch.cat(columns, dim=-1)


def _in(dtype: torch.dtype, parts: Projections) -> Projections:
    q, k = (None if part is None else part.to(dtype) for part in (parts.q, parts.k))
    return Projections(q, k, parts.v.to(dtype))


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
