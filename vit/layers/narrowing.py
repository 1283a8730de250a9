"""Blocks after which fewer tokens go on: token selection."""

from abc import ABC, abstractmethod
from typing import NamedTuple, final

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vit.checks import refuse_causal, refuse_pairs
from vit.layers.attend import MixerFactory, SelfAttention
from vit.layers.mlp import Mlp, MlpFactory
from vit.layers.norm import LayerNorm, NormFactory
from vit.layers.patches import keep_best
from vit.layers.residual import Residual
from vit.tokens import Grid, Layout


class Kept(NamedTuple):
    """Tokens that go on, their layout, and where their patches were among those that came (b k)."""

    tokens: Float[Tensor, "b m c"]
    layout: Layout
    places: Int[Tensor, "b k"]

    def restored(self, before: Float[Tensor, "b n c"], x: Float[Tensor, "b m c"]) -> Float[Tensor, "b n c"]:
        """``x``, what became of the kept tokens, in their places among those of ``before``."""
        front, keys = self.layout.grid.num_prefix, self.layout.patch_keys
        prefix, patches, old = x[:, :front], x[:, front:], before[:, front:].to(x.dtype)
        places = self.places[..., None].expand(-1, -1, x.shape[2])
        if keys is not None:
            patches = torch.where(keys[..., None], patches, old.gather(1, places))
        return torch.cat((prefix, old.scatter(1, places, patches)), dim=1)


class NarrowingBlock(nn.Module, ABC):
    """A block that drops patch tokens: `Encoder` lets later blocks see what it keeps, and puts the others back."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Kept:
        """The tokens that go on, as this block leaves them."""


@final
class TopKBlock(NarrowingBlock):
    """A `Block` whose MLP, and all later blocks, see only the patches its class token attends to most.

    Liang et al. 2022 (EViT), section 3.2: of n patches the k = keep_rate n (rounded, at least 1) of the largest mean
    over heads of the class token's attention stay, and every prefix token; the choice has no gradient. The dropped ones
    are not fused to one token (their section 3.3): it would have no place on the grid. A head that reads the class
    token sees what EViT's does; for others the dropped stand in their places as they came to the block.

    Args:
        dim: channels.
        grid: sizes the mixer's parameters; has a prefix token ``cls``.
        drop_path: as `Block`'s, and so the others.
        keep_rate: share of the present patches that stays. Each such block of a stack takes this share anew.

    Raises:
        ValueError: ``keep_rate`` outside (0, 1], no class token, a mixer other than `SelfAttention`, or a mechanism
            that does not tell the attention of one query alone; when called, a causal mask or a mask of pairs.
    """

    def __init__(
        self,
        dim: int,
        grid: Grid,
        drop_path: float = 0.0,
        keep_rate: float = 0.7,
        mixer: MixerFactory = SelfAttention,
        mlp: MlpFactory = Mlp,
        norm: NormFactory = LayerNorm,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 < keep_rate <= 1.0:
            raise ValueError(f"keep_rate must lie in (0, 1], got {keep_rate}")
        if "cls" not in grid.prefix:
            raise ValueError(f"the class token chooses patches: expected prefix token 'cls', got {list(grid.prefix)}")
        self.keep_rate, self.token = keep_rate, grid.prefix.index("cls")
        self.norm1 = norm(dim)
        self.mixer = _tried(mixer(dim, grid), dim, grid, self.token)
        self.residual1 = Residual(dim, drop_path, layer_scale)
        self.norm2 = norm(dim)
        self.mlp = mlp(dim)
        self.residual2 = Residual(dim, drop_path, layer_scale)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Kept:
        refuse_causal(self, layout)
        refuse_pairs(self, layout, "asks what one token attends to")
        mixed, row = self.mixer.with_row(self.norm1(x), layout, self.token)
        attentiveness = row.mean(dim=1)[:, layout.grid.num_prefix :]
        x, layout, index = keep_best(self.residual1(x, mixed), layout, attentiveness, self.keep_rate)
        return Kept(self.residual2(x, self.mlp(self.norm2(x))), layout, index)


@torch.no_grad()
def _tried(mixer: nn.Module, dim: int, grid: Grid, token: int) -> SelfAttention:
    """The mixer, found to tell one token's attention by trying: that row times the values is what the token takes."""
    if not isinstance(mixer, SelfAttention):
        name = type(mixer).__name__
        raise ValueError(f"the class token's attention chooses patches: expected vit.layers.SelfAttention, got {name}")
    need = f"the class token's attention chooses patches, which {type(mixer.mechanism).__name__} does not tell"
    drawn, layout = torch.Generator().manual_seed(0), Layout(grid)
    x = torch.randn(1, grid.tokens, dim, generator=drawn, device="cpu").to(mixer.proj.weight)
    if x.is_meta:
        return mixer
    training = mixer.training
    try:
        mixed, row = mixer.eval().with_row(x, layout, token)
    except ValueError as error:
        raise ValueError(f"{need}: {error}") from error
    finally:
        mixer.train(training)
    taken = mixer.proj(rearrange(row[:, :, None] @ mixer.project(x, layout).v.to(row), "b h 1 e -> b (h e)").to(x))
    if (taken - mixed[:, token]).norm() > 4 * torch.finfo(taken.dtype).eps ** 0.5 * taken.norm():
        raise ValueError(f"{need}: it treats one query alone otherwise than among all")
    return mixer
