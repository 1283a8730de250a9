"""Per-token multi-layer perceptrons."""

from collections.abc import Callable
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

MlpFactory = Callable[[int], nn.Module]
ActFactory = Callable[[], nn.Module]


@final
class Mlp(nn.Module):
    """fc2(GELU(fc1 x)).  Vaswani et al. 2017, eq. 2, with GELU.

    Args:
        dim: channels.
        mlp_ratio: hidden width over ``dim``.
        drop: dropout after each layer.
        act_layer: what is applied in between; SigLIP 2 has ``nn.GELU(approximate="tanh")``.

    Raises:
        ValueError: the hidden width is below 1.
    """

    def __init__(self, dim: int, mlp_ratio: float = 4.0, drop: float = 0.0, act_layer: ActFactory = nn.GELU) -> None:
        super().__init__()
        hidden = _at_least_one(int(dim * mlp_ratio), dim, mlp_ratio)
        self.fc1 = nn.Linear(dim, hidden)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


@final
class SwiGLU(nn.Module):
    """fc2(SiLU(gate x) * value x).  Shazeer 2020, eq. 6.

    Args:
        dim: channels.
        mlp_ratio: hidden width over ``dim``; 8/3 has the parameters of an `Mlp` at 4. Rounded up to a multiple of 8.
        drop: dropout after the gated product and at the end.

    Raises:
        ValueError: the hidden width is below 1.
    """

    def __init__(self, dim: int, mlp_ratio: float = 8 / 3, drop: float = 0.0) -> None:
        super().__init__()
        hidden = -(-_at_least_one(int(dim * mlp_ratio), dim, mlp_ratio) // 8) * 8
        self.fc1 = nn.Linear(dim, 2 * hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.drop(self.fc2(self.drop(F.silu(gate) * value)))


def _at_least_one(hidden: int, dim: int, mlp_ratio: float) -> int:
    if hidden < 1:
        raise ValueError(f"hidden width must be at least 1, got {hidden} of dim {dim} and mlp_ratio {mlp_ratio}")
    return hidden
