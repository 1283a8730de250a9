import torch
from torch.testing import assert_close

from tests.helpers import B, D, E, H, N, random, row
from vit.attention import Efficient, EfficientScaling
from vit.tokens import Grid, Layout, Mask

KEYS = torch.tensor([[True] * N, [True, False, True, True, False, True, False]])


def test_efficient_equals_the_matrix_it_never_makes() -> None:
    q, k, v = random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    shares = k.masked_fill(~KEYS[:, None, :, None], -torch.inf).softmax(dim=2)
    wanted = (q.softmax(dim=-1) @ shares.transpose(-1, -2)) @ v
    assert_close(Efficient(H, D, Grid(1, N))(q, k, v, Layout(Grid(1, N), Mask(keys=KEYS))), wanted)


def test_scaling_equals_the_non_local_dot_product() -> None:
    q, k, v = random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    mechanism = EfficientScaling(H, D, Grid(1, N))
    assert_close(mechanism(q, k, v, row()), (q @ k.transpose(-1, -2) / N) @ v)
    seen = KEYS[:, None, None].double()
    wanted = (q @ k.transpose(-1, -2) * seen / seen.sum(dim=-1, keepdim=True)) @ v
    assert_close(mechanism(q, k, v, Layout(Grid(1, N), Mask(keys=KEYS))), wanted)


def test_large_scores_stay_finite() -> None:
    q, k, v = 1e4 * torch.randn(B, H, N, D), 1e4 * torch.randn(B, H, N, D), torch.randn(B, H, N, E)
    assert Efficient(H, D, Grid(1, N))(q, k, v, row()).isfinite().all()
