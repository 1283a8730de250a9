"""Mean attention distance, against closed forms."""

import pytest
import torch
from torch.testing import assert_close

from tests.analysis.nets import small_images, small_vit, softmax_weights
from vit.analysis.distances import attention_distances, mean_attention_distance, uniform_distance
from vit.analysis.record import record
from vit.layers import MapPool
from vit.tokens import Grid


def test_uniform_attention_has_the_known_distance():
    assert uniform_distance(Grid(14, 14), 16) == pytest.approx(116.4922, abs=5e-5)
    assert uniform_distance(Grid(14, 14, ("cls", "reg")), 16) == pytest.approx(116.4922, abs=5e-5)


def test_attention_to_itself_is_no_distance():
    assert mean_attention_distance(torch.eye(15).expand(2, 3, 15, 15), Grid(3, 5), 16).tolist() == [0, 0, 0]


def test_patches_have_a_height_and_a_width():
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(1, 1, 2, 2)
    assert mean_attention_distance(swap, Grid(1, 2), (3, 5)).item() == 5
    assert mean_attention_distance(swap, Grid(2, 1), (3, 5)).item() == 3


def test_each_head_is_measured_on_its_own_over_patches_only():
    matrix = torch.zeros(1, 2, 4, 4)
    matrix[0, 0, 1, 3] = 0.25  # two patches away; the rest of its attention is on the prefix and does not count
    matrix[0, 0, 1, 0] = 0.75
    matrix[0, 1, 1, 2], matrix[0, 1, 1, 3] = 0.5, -0.5  # one and two patches away, sign ignored
    matrix[0, :, 2:, 0] = 1  # attend to the prefix only
    assert mean_attention_distance(matrix, Grid(1, 3, ("cls",)), 4).tolist() == [8, 6]


def test_equals_a_loop_on_a_net():
    net, images = small_vit(("cls", "reg")), small_images()
    for found, call in zip(attention_distances(net, images, (2, 3)), record(net, images), strict=True):
        weights, total = softmax_weights(call.q, call.k)[:, :, 2:, 2:], torch.zeros(2, 3, 15, dtype=torch.float64)
        for i in range(15):
            for j in range(15):
                distance = ((2 * (i // 5 - j // 5)) ** 2 + (3 * (i % 5 - j % 5)) ** 2) ** 0.5
                total[:, :, i] += weights[:, :, i, j] * distance
        assert_close(found, (total / weights.sum(-1)).mean(dim=(0, 2)))


def test_the_attention_of_a_pool_is_no_layer():
    assert len(attention_distances(small_vit(("reg",), pool=MapPool), small_images(), 2)) == 3


def test_a_matrix_of_another_size_is_refused():
    with pytest.raises(ValueError, match="over 16 tokens"):
        mean_attention_distance(torch.eye(15).expand(1, 1, 15, 15), Grid(3, 5, ("cls",)), 16)
