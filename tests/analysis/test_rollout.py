"""Rollout: its algebra, its reference, and its reading from a net."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from tests.analysis.nets import rollout_loop, share_matrix, small_images, small_vit, softmax_weights
from tests.helpers import random, redrawn
from vit.analysis.maps import attention_matrix
from vit.analysis.record import record
from vit.analysis.rollout import rollout, rollout_map
from vit.attention import Mechanism
from vit.layers import (
    AdditivePool,
    AFTFull,
    BiLstm,
    Block,
    DistilledHead,
    Fourier,
    GumbelPool,
    Head,
    HierarchicalPool,
    Identity,
    MapPool,
    MaxPool,
    MeanPool,
    NeighbourMean,
    ReinforcePool,
    SelfAttention,
    SpatialReduction,
    TokenMlp,
)
from vit.models import Backbone, ViT
from vit.tokens import Layout

EYE = torch.eye(7, dtype=torch.float64)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_equals_an_independent_float64_loop(layers, heads):
    matrices = [share_matrix(heads, 7) for _ in range(layers)]
    rolled = rollout(matrix.float() for matrix in matrices)
    for position in range(2):
        expected = rollout_loop([matrix[position] for matrix in matrices])
        assert_close(rolled[position].double(), expected, rtol=0, atol=1e-6)
        assert_close(rollout(matrices)[position], expected, rtol=0, atol=1e-12)


def test_identity_attention_gives_the_identity():
    assert_close(rollout([EYE.expand(2, 3, 7, 7)] * 4)[0], EYE, rtol=0, atol=1e-15)


def test_uniform_attention_has_a_closed_form():
    uniform = torch.full((1, 3, 7, 7), 1 / 7, dtype=torch.float64)
    expected = uniform[0, 0] + 2.0**-4 * (EYE - uniform[0, 0])
    assert_close(rollout([uniform] * 4)[0], expected, rtol=0, atol=1e-15)


def test_one_layer_is_the_mean_of_attention_and_identity():
    matrix = share_matrix(1, 7)
    assert_close(rollout([matrix]), (matrix[:, 0] + EYE) / 2, rtol=0, atol=1e-15)


def test_later_layers_multiply_from_the_left():
    first, second = share_matrix(1, 7), share_matrix(1, 7)
    expected = (second[:, 0] + EYE) / 2 @ ((first[:, 0] + EYE) / 2)
    assert_close(rollout([first, second]), expected, rtol=0, atol=1e-15)
    assert not torch.allclose(rollout([second, first]), expected)


def test_order_of_heads_does_not_matter():
    matrices = [share_matrix(3, 7) for _ in range(3)]
    assert_close(rollout(m[:, [2, 0, 1]] for m in matrices), rollout(matrices), rtol=0, atol=1e-15)


def test_permuting_tokens_permutes_the_rollout():
    matrices, order = [share_matrix(3, 7) for _ in range(3)], torch.randperm(7)
    permuted = rollout(m[:, :, order][:, :, :, order] for m in matrices)
    assert_close(permuted, rollout(matrices)[:, order][:, :, order], rtol=0, atol=1e-15)


def test_rows_sum_to_one_whatever_the_weights():
    signed = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    blind = share_matrix(3, 7)
    blind[0, :, 2] = 0  # a query that sees nothing
    rolled = rollout([signed, 5 * share_matrix(3, 7), blind])
    assert (rolled >= 0).all()
    assert_close(rolled.sum(-1), torch.ones(2, 7, dtype=torch.float64), rtol=0, atol=1e-14)


def test_signed_weights_count_by_their_size_with_rows_scaled_to_one():
    signed = torch.randn(2, 1, 7, 7, dtype=torch.float64)
    size = signed[:, 0].abs()
    expected = (size / size.sum(-1, keepdim=True) + EYE) / 2
    assert_close(rollout([signed]), expected, rtol=0, atol=1e-15)


def test_layers_over_different_tokens_are_refused():
    with pytest.raises(ValueError, match="windows, pyramids and blocks that drop tokens have no global rollout"):
        rollout([share_matrix(3, 7), share_matrix(3, 5)])
    with pytest.raises(ValueError, match="at least one layer"):
        rollout([])


@pytest.mark.parametrize(
    ("prefix", "pool", "name"),
    [
        (("cls",), None, "class token"),
        (("reg", "cls", "reg", "reg"), None, "class token"),
        ((), MeanPool, "mean over patches"),
        (("cls", "reg", "reg", "reg", "reg"), MeanPool, "mean over patches"),
        (("reg",), MaxPool, "mean over patches in place of the head's own pool"),
    ],
)
def test_the_map_of_a_net_equals_the_loop_over_its_softmax_weights(prefix, pool, name):
    net, images = small_vit(prefix, **({} if pool is None else {"pool": pool})), small_images()
    seen = rollout_map(net, images)
    assert seen.reading == name
    assert seen.notes == ()
    assert seen.heat.shape == (2, 3, 5)
    weights = [softmax_weights(call.q, call.k) for call in record(net, images)]
    for position in range(2):
        rolled = rollout_loop([layer[position] for layer in weights])[:, len(prefix) :]
        row = rolled[prefix.index("cls")] if pool is None else rolled[len(prefix) :].mean(0)
        assert_close(seen.heat[position], row.view(3, 5), rtol=0, atol=1e-10)


def test_attention_pooling_is_read_by_the_pools_own_attention():
    net, images = small_vit(("reg",), pool=MapPool), small_images()
    seen = rollout_map(net, images)
    *layers, pool = [softmax_weights(call.q, call.k) for call in record(net, images)]
    assert seen.reading == "attention pool"
    rolled = rollout_loop([layer[1] for layer in layers])
    expected = pool[1].mean(0)[0] @ rolled[1:, 1:]
    assert_close(seen.heat[1], expected.view(3, 5), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "pool", [AdditivePool, partial(HierarchicalPool, region=2), ReinforcePool, GumbelPool], ids=str
)
def test_a_pool_of_weights_is_read_by_them(pool):
    """Attention inside the pool, as a hierarchical one has, is no layer of the rollout."""
    net, images = small_vit(("reg",), pool=pool), small_images()
    seen = rollout_map(net, images)
    assert seen.reading == "attention pool"
    *layers, read = record(net, images)
    assert len(layers) == 3
    weights = net.head.pool.weights(*net.backbone(images))
    assert_close(attention_matrix(read)[:, 0, 0], weights)
    rolled = rollout_loop([softmax_weights(layer.q, layer.k)[1] for layer in layers])
    assert_close(seen.heat[1], (weights[1] @ rolled[1:, 1:]).view(3, 5), rtol=0, atol=1e-10)


def test_a_distilled_head_is_read_at_both_its_tokens():
    backbone = partial(Backbone, patch_size=2, embed_dim=24, depth=2, prefix=("cls", "dist"))
    net, images = redrawn(ViT((6, 10), 3, 4, backbone, DistilledHead)), small_images()
    seen = rollout_map(net, images)
    weights = [softmax_weights(call.q, call.k) for call in record(net, images)]
    rolled = rollout_loop([layer[0] for layer in weights])
    assert seen.reading == "cls and dist token"
    assert_close(seen.heat[0], rolled[:2, 2:].mean(0).view(3, 5), rtol=0, atol=1e-10)


def test_one_picture_or_many_is_the_same():
    net, images = small_vit().float(), small_images(5).float()
    together = rollout_map(net, images).heat
    alone = torch.cat([rollout_map(net, image[None]).heat for image in images])
    assert_close(alone, together, rtol=0, atol=1e-6)


def test_another_image_size_has_its_own_grid():
    assert rollout_map(small_vit(), torch.randn(1, 3, 8, 4, dtype=torch.float64)).heat.shape == (1, 4, 2)


def test_says_when_weights_were_no_shares():
    net = small_vit(mechanism=Averaging)
    seen = rollout_map(net, small_images())
    assert seen.notes == ("weights were no shares: absolute values, rows scaled to one",)
    uniform = 1 / 16 * (1 - 2.0**-3)  # off the diagonal, after three layers
    assert_close(seen.heat, torch.full((2, 3, 5), uniform, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("pool", "message"), [(MeanPool, "called no attention"), (MapPool, "attends in its pool only")]
)
@pytest.mark.parametrize("mixer", [Fourier, TokenMlp, AFTFull, BiLstm, NeighbourMean, SpatialReduction])
def test_mixers_that_are_no_attention_have_no_rollout(mixer: type, pool: type, message: str):
    backbone = partial(Backbone, patch_size=2, embed_dim=6, depth=2, block=partial(Block, mixer=mixer))
    net = ViT((6, 10), 3, 4, backbone, partial(Head, pool=pool))
    with pytest.raises(ValueError, match=f"^ViT {message}[^\\n]*$"):
        rollout_map(net, torch.randn(1, 3, 6, 10))


def test_shared_layers_count_as_often_as_they_run():
    block = partial(Block, mixer=partial(SelfAttention, num_heads=2))
    options = {"patch_size": 2, "embed_dim": 6, "depth": 3, "block": block}
    shared = redrawn(ViT((6, 10), 3, 4, partial(Backbone, **options, share_layers=True)))
    apart = redrawn(ViT((6, 10), 3, 4, partial(Backbone, **options)))
    weights = shared.state_dict()
    for i in (1, 2):
        weights |= {name.replace("blocks.0", f"blocks.{i}"): value for name, value in weights.items()}
    apart.load_state_dict(weights)
    images = random(1, 3, 6, 10)
    assert_close(rollout_map(shared, images).heat, rollout_map(apart, images).heat)


def test_says_when_blocks_have_no_attention():
    mixers = [(partial(Block, mixer=Identity), 2)]
    backbone = partial(Backbone, patch_size=2, embed_dim=24, depth=3, early=mixers)
    seen = rollout_map(ViT((6, 10), 3, 4, backbone).double(), small_images())
    assert seen.notes == ("2 of its blocks have no attention and count as passing tokens on",)


class Averaging(Mechanism):
    """Minus twice the mean: weights that are neither positive nor sum to one."""

    def __init__(self, heads, head_dim, grid):
        super().__init__()

    def forward(self, q, k, v, layout: Layout):
        return -2 * v.mean(dim=2, keepdim=True).expand_as(v)
