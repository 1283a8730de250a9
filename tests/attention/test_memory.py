"""What a backward pass keeps, in bytes: exact, unlike time."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.helpers import row
from vit.attention import RFA, Efficient, Linear, Linformer, Mechanism, Performer
from vit.tokens import Grid

DIM, LONG = 16, 4096


def kept(call: Callable[[Tensor, Tensor, Tensor], Tensor], n: int) -> int:
    sizes: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        held.append(x)  # or its place would be used again
        return x

    held: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        call(*(torch.randn(1, 1, n, DIM, requires_grad=True) for _ in range(3)))
    return sum(sizes.values())


def of(kind: type[Mechanism], n: int = LONG, **options: int) -> int:
    mechanism = kind(1, DIM, Grid(1, n), **options)
    return kept(lambda q, k, v: mechanism(q, k, v, row(n)), n)


def explicit(n: int = LONG) -> int:
    return kept(lambda q, k, v: (q @ k.mT * DIM**-0.5).softmax(dim=-1) @ v, n)


@pytest.mark.parametrize("kind", [Linear, Efficient, Linformer])
def test_at_most_a_tenth_of_explicit_softmax(kind: type[Mechanism]) -> None:
    assert of(kind) < explicit() / 10
    assert of(kind) < 4.2 * of(kind, LONG // 4)  # and in proportion to the tokens


@pytest.mark.parametrize("kind", [Performer, RFA])
def test_random_features_keep_in_proportion_to_features_over_tokens(kind: type[Mechanism]) -> None:
    whole = explicit()
    shares = {m: of(kind, features=m) / whole for m in (64, 256)}
    for features, share in shares.items():
        assert features / LONG < share < 12 * features / LONG
    assert shares[256] / shares[64] == pytest.approx(4, rel=0.3)
    assert of(kind, features=64) == pytest.approx(4 * of(kind, LONG // 4, features=64), rel=0.1)
