"""The encoder every net shares: it classifies, pretrains, is probed and explained as the same object."""

from collections.abc import Callable, Sequence
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vit.layers import (
    Block,
    BlockFactory,
    Encoder,
    LayerNorm,
    LearnedPositions,
    LowRankLinear,
    NormFactory,
    PatchDropout,
    PatchEmbed,
    PatchEmbedFactory,
    PositionFactory,
    SelfAttention,
    Size,
    Sizes,
    default_patch_size,
    pair,
    patch_grid,
    patch_grids,
)
from vit.spec import keeps_spec
from vit.tokens import Grid, Layout


@final
@keeps_spec
class Backbone(nn.Module):
    """Images to encoded tokens.  Dosovitskiy et al. 2021.

    Args:
        img_size: (height, width) or one side; sizes positions and grid mechanisms. Others work where parts allow it.
        in_chans: channels of the images.
        patch_size: (height, width) or one side; None chooses by the image size, see `default_patch_size`.
        embed_dim: channels of the tokens.
        depth: blocks in all.
        prefix: names of the learned tokens in front: ``cls``, ``reg`` for registers (Darcet et al. 2024), ``dist``.
        patch_embed: images to patch tokens.
        pos_embed: positions added to patch tokens.
        patch_drop: share of patch tokens dropped in training.
        block: the block of every layer that ``early`` does not claim.
        early: (block, count) pairs for the first layers, counted in ``depth``: early convolution, late attention.
        drop_path: stochastic depth rate of the last block.
        share_layers: one block for all layers of ``block``, one for those of each entry of ``early`` (Lan et al. 2020,
            ALBERT); its drop-path rate is the mean of theirs, see `Encoder`.
        grad_checkpointing: train with less memory and more time, see `Encoder`; the result is the same.
        norm: final norm.

    Raises:
        ValueError: the image is not divisible by the patch, ``early`` has more blocks than ``depth``, ``embed_dim`` is
            below 1 or ``depth`` below 0.
    """

    def __init__(
        self,
        img_size: int | Size,
        in_chans: int,
        patch_size: int | Size | None = None,
        embed_dim: int = 192,
        depth: int = 12,
        prefix: Sequence[str] = ("cls",),
        patch_embed: PatchEmbedFactory = PatchEmbed,
        pos_embed: PositionFactory = LearnedPositions,
        patch_drop: float = 0.0,
        block: BlockFactory = Block,
        early: Sequence[tuple[BlockFactory, int]] = (),
        drop_path: float = 0.0,
        share_layers: bool = False,
        grad_checkpointing: bool = False,
        norm: NormFactory = LayerNorm,
    ) -> None:
        super().__init__()
        if embed_dim < 1:
            raise ValueError(f"embed_dim must be at least 1, got {embed_dim}")
        if depth < 0:
            raise ValueError(f"depth must be at least 0, got {depth}")
        img_size = pair(img_size)
        self.in_chans, self.embed_dim = in_chans, embed_dim
        self.patch_size = default_patch_size(img_size) if patch_size is None else pair(patch_size)
        self.grid = Grid(*patch_grid(*img_size, self.patch_size), prefix=tuple(prefix))
        late = depth - sum(count for _, count in early)
        if late < 0:
            raise ValueError(f"early blocks are counted in depth {depth}, but there are {depth - late} of them")
        self.patch_embed = patch_embed(in_chans, embed_dim, self.patch_size)
        self.prefix_tokens = nn.Parameter(torch.randn(1, len(prefix), embed_dim) * 0.02)
        self.pos_embed = pos_embed(embed_dim, self.grid)
        self.patch_drop = PatchDropout(patch_drop)
        blocks = [*early, (block, late)]
        self.encoder = Encoder(embed_dim, self.grid, blocks, drop_path, share_layers, grad_checkpointing)
        self.norm = norm(embed_dim)
        self.apply(init_weights)

    def forward(
        self, images: Float[Tensor, "b c height width"], sizes: Sizes | None = None
    ) -> tuple[Float[Tensor, "b n d"], Layout]:
        tokens, layout = self.patch_drop(*self.embed(images, sizes))
        return self.encode(tokens, layout), layout

    def embed(
        self, images: Float[Tensor, "b c height width"], sizes: Sizes | None = None
    ) -> tuple[Float[Tensor, "b n d"], Layout]:
        """Patch tokens with positions, prefix tokens in front; apart from `encode` so that others can step between.

        Args:
            images: a batch; pictures of different sizes lie at the top left of it, whatever fills the rest.
            sizes: their heights and widths in pixels, None where all are as large as the batch. Each picture then gets
                the tokens it has alone; those of the padding are zero and masked, see `Layout.padded`.

        Raises:
            ValueError: wrong channel count, an image not divisible by the patch, or sizes beyond the batch's.
        """
        channels, height, width = images.shape[1:]
        if channels != self.in_chans:
            raise ValueError(f"the model takes images of {self.in_chans} channels, got {channels}")
        grid = Grid(*patch_grid(height, width, self.patch_size), prefix=self.grid.prefix)
        layout = Layout(grid)
        if sizes is not None:
            sizes = sizes.to(images.device)
            layout = Layout.padded(grid, patch_grids(images, sizes, self.patch_size))
        patches = self.pos_embed(self.patch_embed(images, sizes), grid, layout.sizes)
        if layout.patch_keys is not None:
            patches = patches.masked_fill(~layout.patch_keys[..., None], 0.0)
        prefix = self.prefix_tokens.expand(images.shape[0], -1, -1).to(patches.dtype)
        return torch.cat((prefix, patches), dim=1), layout

    def encode(self, tokens: Float[Tensor, "b n d"], layout: Layout) -> Float[Tensor, "b n d"]:
        """All blocks and the final norm."""
        return self.norm(self.encoder(tokens, layout))


BackboneFactory = Callable[[int | Size, int], nn.Module]
"""(img_size, in_chans) -> a `Backbone`; typed as a module because jsonargparse takes no factory of a final class."""


def init_weights(module: nn.Module) -> None:
    """Fresh weights, one rule per kind of layer; everything else keeps the value its own constructor gives.

    Linear: Xavier uniform, zero bias, with the shares of ``qkv`` counted as matrices of their own (so that small widths
    keep their signal). A patch projection is initialised as the linear map it is.
    """
    if isinstance(module, SelfAttention):
        for share in module.qkv.weight.split(module.widths):
            nn.init.xavier_uniform_(share)
    elif isinstance(module, PatchEmbed):
        nn.init.xavier_uniform_(rearrange(module.proj.weight.data, "d c y x -> d (c y x)"))
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


def parameters_without_decay(net: nn.Module) -> set[str]:
    """Names of parameters that weight decay should spare: all but the matrices of linear maps and convolutions."""
    matrices = {id(m.weight) for m in net.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)}
    matrices |= {id(factor) for m in net.modules() if isinstance(m, LowRankLinear) for factor in (m.down, m.up)}
    return {name for name, parameter in net.named_parameters() if id(parameter) not in matrices}
