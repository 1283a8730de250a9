"""Mechanisms compared on the queries, keys and values of one trained net."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.analysis.maps import attention_matrix
from vit.analysis.record import Recorded
from vit.attention import Mechanism, MechanismFactory, Projections
from vit.layers import SelfAttention
from vit.models import ViT


@torch.no_grad()
def given(call: Recorded, mechanism: Mechanism) -> Recorded:
    """The same call, had ``mechanism`` been asked. One that wants a second set is given the first once more.

    Raises:
        ValueError: the call has no queries or keys to give.
    """
    if call.q is None or call.k is None:
        raise ValueError(f"expected a call with queries and keys, {type(call.mechanism).__name__} takes none")
    inputs = mechanism.inputs
    first = Projections(call.q if "q" in inputs else None, call.k if "k" in inputs else None, call.v)
    second = (first,) if mechanism.second else ()
    out = mechanism.eval()(*first, call.layout, *second)
    return Recorded(*first, call.layout, out, mechanism, *second)


def built(call: Recorded, mechanism: MechanismFactory, seed: int = 0) -> Mechanism:
    """A fresh mechanism for the heads, widths and grid of ``call``; its own parameters follow from the seed."""
    width = (call.v if call.q is None else call.q).shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return mechanism(call.v.shape[1], width, call.layout.grid).to(call.v)


def matrices(
    call: Recorded, mechanisms: Mapping[str, MechanismFactory], seed: int = 0
) -> dict[str, Float[Tensor, "b h n n"]]:
    """The exact matrix of each mechanism, by name, on what the recorded one was given."""
    return {name: attention_matrix(given(call, built(call, made, seed))) for name, made in mechanisms.items()}


@torch.no_grad()
def order_matters(call: Recorded, mechanisms: Mapping[str, MechanismFactory], seed: int = 0) -> dict[str, float]:
    """|f(P x) - P f(x)| / |f(x)|, P a shuffling of the tokens, by name: 0 of what sees a set."""
    order = torch.randperm(call.v.shape[2], generator=torch.Generator().manual_seed(seed))
    shuffled = replace(call, q=_at(call.q, order), k=_at(call.k, order), v=call.v[:, :, order])
    found = {}
    for name, made in mechanisms.items():
        mechanism = built(call, made, seed)
        straight = given(call, mechanism).out[:, :, order]
        found[name] = departure(given(shuffled, mechanism).out, straight)
    return found


def departure(matrix: Float[Tensor, "b h n n"], reference: Float[Tensor, "b h n n"]) -> float:
    """|A - R| / |R|: 0 for the same weights."""
    return ((matrix - reference).norm() / reference.norm()).item()


def swapped(net: ViT, mechanism: MechanismFactory, seed: int = 0) -> ViT:
    """A copy of ``net`` in which another mechanism gets the queries, keys and values that its own got.

    Nothing is trained again: it tells whether both compute the same, not what the other could learn.

    Raises:
        ValueError: a mechanism that wants other projections than the net has.
    """
    net = deepcopy(net).eval()
    for part in net.modules():
        if isinstance(part, SelfAttention):
            part.mechanism = _in_place_of(part, mechanism, net, seed)
    return net


def _in_place_of(part: SelfAttention, mechanism: MechanismFactory, net: nn.Module, seed: int) -> Mechanism:
    old = part.mechanism
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = mechanism(part.num_heads, part.widths[0] // part.num_heads, cast(ViT, net).backbone.grid)
    if (old.inputs, old.second) != (new.inputs, new.second):
        raise ValueError(
            f"{type(new).__name__} wants the projections {new.inputs}{' twice' * new.second}, "
            f"the net has {old.inputs}{' twice' * old.second}"
        )
    return new.to(part.proj.weight).eval()


def _at(part: Tensor | None, order: Tensor) -> Tensor | None:
    return None if part is None else part[:, :, order]
