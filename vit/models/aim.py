"""Autoregressive image modelling: predict the next patch."""

from functools import partial
from typing import cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from vit.layers import Block, Encoder, Identity, LayerNorm, Size
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
from vit.tokens import Layout, Mask


@final
@keeps_spec
class AIM(Pretraining):
    """Predict each patch in raster order from those before it.  El-Nouby et al. 2024.

    GPT's idea (Radford et al. 2018) on patches: token t sees tokens up to t and predicts patch t + 1. A prefix of
    random length is seen both ways and not predicted, so that the encoder learns the two-way attention it is finetuned
    with (their section 3.2). A head of per-token MLP blocks keeps the encoder's last tokens general (their 3.3). The
    loss is the mean squared error of the predicted patches.

    Args:
        img_size: (height, width) or one side.
        in_chans: channels of the images.
        backbone: images to tokens; every part has to accept a causal mask. Mean or attention pooling suits it: a class
            token stands first and sees no patch beyond the prefix.
        prefix: largest share of patches seen both ways; 0 for plain causal attention.
        head_depth: MLP blocks of the head, None for a third of the backbone's depth (published: 12).
        norm_target: as `MAE`'s.

    Raises:
        ValueError: ``prefix`` outside [0, 1], a grid of one patch, normalised targets of one number, or a backbone
            whose patch tokens see other patches or a part of which cannot honour the mask.
    """

    def __init__(
        self,
        img_size: int | Size,
        in_chans: int,
        backbone: BackboneFactory = Backbone,
        prefix: float = 1.0,
        head_depth: int | None = None,
        norm_target: bool | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= prefix <= 1:
            raise ValueError(f"prefix must lie in [0, 1], got {prefix}")
        self.prefix = prefix
        self.backbone = cast(Backbone, backbone(img_size, in_chans))
        self._check()
        self.target = PatchTarget(self.backbone.patch_size, in_chans, norm_target)
        dim, depth = self.backbone.embed_dim, len(self.backbone.encoder.layers)
        depth = max(1, depth // 3) if head_depth is None else head_depth
        self.head = Encoder(dim, self.backbone.grid, [(partial(Block, mixer=Identity), depth)])
        self.head_norm = LayerNorm(dim)
        self.head_pred = nn.Linear(dim, self.target.numbers)
        for part in (self.head, self.head_pred):
            part.apply(init_weights)

    @override
    def forward(self, images: Float[Tensor, "b c height width"], noise: Float[Tensor, "b n"]) -> Reconstruction:
        tokens, layout = self.backbone.embed(images)
        length = self._prefix_length(noise)
        layout = Layout(layout.grid, self._mask(length, layout.grid.num_prefix))
        encoded = self.backbone.encode(tokens, layout)
        predicted = self.head_pred(self.head_norm(self.head(encoded, layout)))
        prediction = F.pad(predicted[:, layout.grid.num_prefix : -1], (0, 0, 1, 0))  # none for the first patch
        error = (prediction - self.target(images)).square().mean(dim=-1)
        wanted = torch.arange(noise.shape[1], device=noise.device) >= length[:, None]
        return Reconstruction(mean_where(error, wanted), prediction, wanted)

    def _prefix_length(self, noise: Float[Tensor, "b n"]) -> Int[Tensor, " b"]:
        """Patches that are not predicted: uniform in 1..prefix, the first at least, which nothing precedes."""
        longest = max(1, round(self.prefix * (noise.shape[1] - 1)))
        return (1 + (noise[:, 0] * longest).long()).clamp(max=longest)

    def _mask(self, length: Int[Tensor, " b"], front: int) -> Mask:
        return Mask(causal=True, prefix=None if self.prefix == 0 else length + front)

    def _check(self) -> None:
        require_several_patches("AIM", self.backbone)
        require_own_pixels("AIM", self.backbone)
        grid = self.backbone.grid
        length = torch.ones(1, dtype=torch.long, device=self.backbone.prefix_tokens.device)
        layout = Layout(grid, self._mask(length, grid.num_prefix))
        require_layout("AIM", "an encoder that sees no later patch", "SimMIM shows it all", self.backbone, layout)
