import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers import B, N, random, redrawn
from vit.layers import Mlp, SwiGLU

C = 13


def test_mlp_formula() -> None:
    mlp, x = redrawn(Mlp(C, 2.0)), random(B, N, C)
    assert mlp.fc1.out_features == 26
    hidden = x @ mlp.fc1.weight.T + mlp.fc1.bias
    gelu = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    assert_close(mlp(x), gelu @ mlp.fc2.weight.T + mlp.fc2.bias)


def test_an_mlp_may_approximate_its_gelu() -> None:
    """Hendrycks and Gimpel 2016, section 2."""
    mlp, x = redrawn(Mlp(C, 2.0, act_layer=partial(nn.GELU, approximate="tanh"))), random(B, N, C)
    hidden = x @ mlp.fc1.weight.T + mlp.fc1.bias
    gelu = hidden * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3))) / 2
    assert_close(mlp(x), gelu @ mlp.fc2.weight.T + mlp.fc2.bias)


def test_swiglu_formula() -> None:
    mlp, x = redrawn(SwiGLU(C, 2.0)), random(B, N, C)
    hidden = mlp.fc2.in_features
    assert hidden == 32  # 26, rounded up to a multiple of 8
    gate = x @ mlp.fc1.weight[:hidden].T + mlp.fc1.bias[:hidden]
    value = x @ mlp.fc1.weight[hidden:].T + mlp.fc1.bias[hidden:]
    assert_close(mlp(x), (gate / (1 + torch.exp(-gate)) * value) @ mlp.fc2.weight.T + mlp.fc2.bias)


def test_swiglu_has_about_the_parameters_of_an_mlp() -> None:
    ours, theirs = (sum(p.numel() for p in kind(192).parameters()) for kind in (SwiGLU, Mlp))
    assert ours == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("kind", [Mlp, SwiGLU])
def test_works_on_each_token_alone(kind: type[nn.Module]) -> None:
    mlp, x = redrawn(kind(C)), random(B, N, C)
    assert_close(mlp(x)[:, 3:4], mlp(x[:, 3:4]))


@pytest.mark.parametrize("kind", [Mlp, SwiGLU])
def test_dropout_acts_in_training_only(kind: type[nn.Module]) -> None:
    mlp, x = kind(C, drop=0.5), torch.randn(B, N, C)
    assert (mlp(x) == 0).float().mean().item() == pytest.approx(0.5, abs=0.15)
    assert_close(mlp.eval()(x), mlp(x), rtol=0, atol=0)
    assert (mlp(x) == 0).sum() == 0


@pytest.mark.parametrize("kind", [Mlp, SwiGLU])
@pytest.mark.parametrize(("ratio", "hidden"), [(0.0, 0), (0.05, 0), (-2.0, -26)])
def test_the_hidden_width_is_at_least_one(kind: type[nn.Module], ratio: float, hidden: int) -> None:
    message = f"hidden width must be at least 1, got {hidden} of dim 13 and mlp_ratio {ratio}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind(C, ratio)
