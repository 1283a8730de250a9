"""Other mechanisms in the place of a net's own."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from tests.analysis.nets import recorded_softmax, small_images, small_vit, softmax_weights
from vit.analysis.maps import attention_matrix
from vit.analysis.record import record
from vit.analysis.same_inputs import built, departure, given, matrices, order_matters, swapped
from vit.attention import Linear, Linformer, Longformer, Nystrom, Performer, RandomSynthesizer, Relu, Softmax
from vit.layers import MeanPool
from vit.tokens import Grid


def test_each_mechanism_gets_what_the_recorded_one_got():
    call = recorded_softmax(Grid(3, 5), dtype=torch.float64)
    found = matrices(call, {"one": Softmax, "other": partial(Softmax, scale=0.1), "relu": Relu})
    assert_close(found["one"], softmax_weights(call.q, call.k))
    assert_close(found["other"], softmax_weights(call.q * 5**0.5 * 0.1, call.k))
    scores = (call.q @ call.k.mT / 5**0.5).relu() / 15
    assert_close(found["relu"], scores)
    assert departure(found["one"], found["one"]) == 0
    assert departure(2 * found["one"], found["one"]) == pytest.approx(1)


def test_mechanisms_that_take_less_or_want_more_are_served():
    call = recorded_softmax(Grid(3, 5), dtype=torch.float64)
    synthesized = given(call, built(call, RandomSynthesizer))
    assert synthesized.q is None
    assert synthesized.k is None
    assert given(call, built(call, partial(Longformer, width=1))).second is not None
    with pytest.raises(ValueError, match="RandomSynthesizer takes none"):
        given(synthesized, Softmax(3, 5, Grid(3, 5)))


def test_a_fresh_mechanism_follows_from_the_seed_and_leaves_the_generator_alone():
    call = recorded_softmax(Grid(3, 5))
    before = torch.get_rng_state()
    first, same, other = (matrices(call, {"": partial(Linformer, rank=4)}, seed)[""] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, same)
    assert departure(first, other) > 0.1


def test_what_sees_a_set_and_what_does_not():
    call = recorded_softmax(Grid(3, 5), dtype=torch.float64)
    found = order_matters(call, {"softmax": Softmax, "linear": Linear, "linformer": partial(Linformer, rank=4)})
    assert max(found["softmax"], found["linear"]) < 1e-12
    assert found["linformer"] > 0.1


def test_a_swapped_net_computes_with_the_other_mechanism():
    net, images = small_vit((), MeanPool, value_dim=None), small_images()
    assert_close(swapped(net, Softmax)(images), net(images))
    other = swapped(net, partial(Softmax, scale=0.0))
    assert (other(images) - net(images)).abs().max() > 1e-3
    assert_close(attention_matrix(record(other, images)[0]), torch.full((2, 3, 15, 15), 1 / 15).double())
    nystrom = swapped(net, partial(Nystrom, landmarks=15))  # as many landmarks as tokens: the same matrix
    assert_close(nystrom(images), net(images), rtol=1e-2, atol=1e-2)
    assert swapped(net, Performer)(images).isfinite().all()
    with pytest.raises(ValueError, match=r"RandomSynthesizer wants the projections \('v',\)"):
        swapped(net, RandomSynthesizer)
