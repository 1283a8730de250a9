import math

import pytest
import torch
from torch.testing import assert_close

from tests.helpers import B, N, random
from vit.layers import DropPath, LayerScale, Residual

C, SAMPLES, RATE = 5, 4000, 0.3


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    x = random(1, N, C).expand(SAMPLES, N, C)
    factors = DropPath(RATE)(x) / x
    per_sample = factors[:, :1, :1]
    assert_close(factors, per_sample.expand_as(factors))
    assert_close(per_sample.unique(), torch.tensor([0, 1 / (1 - RATE)]).double(), rtol=1e-6, atol=0)
    kept = (per_sample > 0).double().mean().item()
    assert abs(kept - (1 - RATE)) < 5 * math.sqrt(RATE * (1 - RATE) / SAMPLES)
    assert_close(per_sample.mean().item(), 1.0, rtol=0, atol=5 * math.sqrt(RATE / (1 - RATE) / SAMPLES))


def test_drop_path_gives_dropped_samples_no_gradient() -> None:
    x = random(16, N, C).requires_grad_()
    out = DropPath(0.5)(x)
    out.sum().backward()
    assert_close(x.grad, torch.where(out == 0, 0.0, 2.0).double())
    assert 0 < (out[:, 0, 0] == 0).sum() < 16


@pytest.mark.parametrize(("rate", "training"), [(RATE, False), (0.0, True)])
def test_drop_path_is_the_identity_in_eval_or_at_rate_zero(rate: float, training: bool) -> None:
    x = random(B, N, C)
    assert DropPath(rate).train(training)(x) is x


@pytest.mark.parametrize("rate", [1.0, -0.1])
def test_drop_path_rate_is_a_share(rate: float) -> None:
    with pytest.raises(ValueError, match=rf"^drop_path must lie in \[0, 1\), got {rate}$"):
        DropPath(rate)


@pytest.mark.parametrize("init", [1e-5, 1])
def test_layer_scale_is_one_factor_per_channel(init: float) -> None:
    scale, x = LayerScale(C, init), torch.randn(B, N, C)
    assert_close(scale(x), init * x)
    scale.gamma.data = torch.arange(C).float()
    assert_close(scale(x), torch.stack([c * x[..., c] for c in range(C)], dim=-1))
    assert scale.gamma.requires_grad


def test_residual_adds_the_scaled_branch() -> None:
    x, branch = torch.randn(B, N, C), torch.randn(B, N, C)
    assert_close(Residual(C)(x, branch), x + branch)
    assert_close(Residual(C, layer_scale=0.1)(x, branch), x + 0.1 * branch)
    residual = Residual(C, drop_path=0.5, layer_scale=0.1)
    many = residual(torch.zeros(64, N, C), torch.ones(64, N, C))
    assert_close(many.unique(), torch.tensor([0, 0.2]))
    assert_close(residual.eval()(x, branch), x + 0.1 * branch)
