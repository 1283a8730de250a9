"""The masked autoencoder."""

from functools import partial
from typing import cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from vit.layers import Block, Encoder, LayerNorm, PositionFactory, SelfAttention, SinCos2d, Size, keep_patches
from vit.models.backbone import Backbone, BackboneFactory, init_weights
from vit.models.patchify import PatchTarget
from vit.models.pretraining import (
    Pretraining,
    Reconstruction,
    mean_where,
    require_layout,
    require_own_pixels,
    require_several_patches,
)
from vit.spec import keeps_spec
from vit.tokens import Layout

HEAD_DIM = 32
"""Width of the decoder's heads, as published."""


@final
@keeps_spec
class MAE(Pretraining):
    """Encode the visible patches alone, put mask tokens where the others were, predict their pixels.  He et al. 2022.

    A small decoder is the default; the published one is ``decoder_embed_dim=512, decoder_depth=8``. The loss is the
    mean squared error of the hidden patches only.

    Args:
        img_size: (height, width) or one side.
        in_chans: channels of the images.
        backbone: images to tokens; every part has to accept a subset of the patches.
        mask_ratio: share of patches hidden; at least one is, and one is not.
        decoder_embed_dim: width of the decoder, None for half the backbone's.
        decoder_depth: blocks of the decoder, None for a third of the backbone's.
        decoder_num_heads: None for heads of width 32, or the nearest wider.
        decoder_pos_embed: positions of the decoder's patch tokens.
        norm_target: predict each patch standardised, see `PatchTarget`.

    Raises:
        ValueError: ``mask_ratio`` outside (0, 1), a grid of one patch, normalised targets of one number, or a backbone
            that cannot be masked: its patch tokens see other patches, or a part needs all of them.
    """

    def __init__(
        self,
        img_size: int | Size,
        in_chans: int,
        backbone: BackboneFactory = Backbone,
        mask_ratio: float = 0.75,
        decoder_embed_dim: int | None = None,
        decoder_depth: int | None = None,
        decoder_num_heads: int | None = None,
        decoder_pos_embed: PositionFactory = SinCos2d,
        norm_target: bool | None = None,
    ) -> None:
        super().__init__()
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must lie in (0, 1), got {mask_ratio}")
        self.mask_ratio = mask_ratio
        self.backbone = cast(Backbone, backbone(img_size, in_chans))
        self._check()
        self.target = PatchTarget(self.backbone.patch_size, in_chans, norm_target)
        dim, grid = self.backbone.embed_dim, self.backbone.grid
        width = -(-dim // 8) * 4 if decoder_embed_dim is None else decoder_embed_dim
        depth = max(1, len(self.backbone.encoder.layers) // 3) if decoder_depth is None else decoder_depth
        heads = _num_heads(width) if decoder_num_heads is None else decoder_num_heads
        self.decoder_embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.decoder_pos_embed = decoder_pos_embed(width, grid)
        block = partial(Block, mixer=partial(SelfAttention, num_heads=heads))
        self.decoder = Encoder(width, grid, [(block, depth)])
        self.decoder_norm = LayerNorm(width)
        self.decoder_pred = nn.Linear(width, self.target.numbers)
        for part in (self.decoder_embed, self.decoder, self.decoder_pred):
            part.apply(init_weights)

    @override
    def forward(self, images: Float[Tensor, "b c height width"], noise: Float[Tensor, "b n"]) -> Reconstruction:
        tokens, layout = self.backbone.embed(images)
        index = noise.argsort(dim=1)[:, : self._visible(noise.shape[1])].sort(dim=1).values
        visible, kept = keep_patches(tokens, layout, index)
        prediction = self._decode(self.backbone.encode(visible, kept), kept)
        error = (prediction - self.target(images)).square().mean(dim=-1)
        wanted = torch.ones_like(noise, dtype=torch.bool).scatter(1, index, False)
        return Reconstruction(mean_where(error, wanted), prediction, wanted)

    def _decode(self, encoded: Float[Tensor, "b m d"], kept: Layout) -> Float[Tensor, "b n p"]:
        """Every patch's prediction: the encoded tokens where they belong, mask tokens elsewhere."""
        assert kept.index is not None
        tokens, front = self.decoder_embed(encoded), kept.grid.num_prefix
        places = kept.index[..., None].expand(-1, -1, tokens.shape[2])
        hidden = self.mask_token.to(tokens.dtype).expand(len(tokens), kept.grid.patches, -1)
        patches = self.decoder_pos_embed(hidden.scatter(1, places, tokens[:, front:]), kept.grid)
        decoded = self.decoder(torch.cat((tokens[:, :front], patches), dim=1), Layout(kept.grid))
        return self.decoder_pred(self.decoder_norm(decoded[:, front:]))

    def _visible(self, patches: int) -> int:
        return min(max(1, round(patches * (1 - self.mask_ratio))), patches - 1)

    def _check(self) -> None:
        require_several_patches("MAE", self.backbone)
        require_own_pixels("MAE", self.backbone)
        patches = self.backbone.grid.patches
        visible = self._visible(patches)
        index = torch.arange(visible, device=self.backbone.prefix_tokens.device)[None]
        need = f"an encoder of the {visible} visible of {patches} patches"
        require_layout("MAE", need, "SimMIM shows it all", self.backbone, Layout(self.backbone.grid).keep(index))


def _num_heads(width: int) -> int:
    return next(heads for heads in range(max(1, width // HEAD_DIM), 0, -1) if width % heads == 0)
