"""Masked image modelling with mask tokens in the encoder."""

from typing import cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from vit.checks import require_below_one
from vit.layers import Size
from vit.models.backbone import Backbone, BackboneFactory, init_weights
from vit.models.patchify import PatchTarget, patchify, unpatchify
from vit.models.pretraining import Pretraining, Reconstruction, mean_where, require_several_patches
from vit.spec import keeps_spec


@final
@keeps_spec
class SimMIM(Pretraining):
    """Encode all patches, mask tokens in place of the hidden ones, and predict these by a linear map.  Xie et al. 2022.

    BERT's idea (Devlin et al. 2019) on patches. The encoder has every token in its place, so that any backbone can be
    trained. The pixels of hidden patches are blanked before the embedding, which may thus look beyond its patch. The
    loss is the mean absolute error of hidden pixels only. Single patches are hidden; the paper hides squares of several
    where patches are small.

    Args:
        img_size: (height, width) or one side.
        in_chans: channels of the images.
        backbone: images to tokens.
        mask_ratio: share of patches hidden.

    Raises:
        ValueError: ``mask_ratio`` outside [0, 1), or the grid has one patch.
    """

    def __init__(
        self,
        img_size: int | Size,
        in_chans: int,
        backbone: BackboneFactory = Backbone,
        mask_ratio: float = 0.6,
    ) -> None:
        super().__init__()
        self.mask_ratio = require_below_one(mask_ratio, "mask_ratio")
        self.backbone = cast(Backbone, backbone(img_size, in_chans))
        require_several_patches("SimMIM", self.backbone)
        self.target = PatchTarget(self.backbone.patch_size, in_chans, normalised=False)
        self.mask_token = nn.Parameter(torch.randn(1, 1, self.backbone.embed_dim) * 0.02)
        self.decoder = nn.Linear(self.backbone.embed_dim, self.target.numbers)
        self.decoder.apply(init_weights)

    @override
    def forward(self, images: Float[Tensor, "b c height width"], noise: Float[Tensor, "b n"]) -> Reconstruction:
        patch_size, size = self.backbone.patch_size, (images.shape[2], images.shape[3])
        wanted = noise.argsort(dim=1).argsort(dim=1) < self.num_hidden(noise.shape[1])
        patches = patchify(images, patch_size)
        blanked = unpatchify(patches.masked_fill(wanted[..., None], 0.0), patch_size, size)
        tokens, layout = self.backbone.embed(blanked)
        front = layout.grid.num_prefix
        hidden = self.backbone.pos_embed(self.mask_token.to(tokens.dtype).expand(1, noise.shape[1], -1), layout.grid)
        shown = torch.where(wanted[..., None], hidden, tokens[:, front:])
        encoded = self.backbone.encode(torch.cat((tokens[:, :front], shown), dim=1), layout)
        prediction = self.decoder(encoded[:, front:])
        error = (prediction - self.target(images)).abs().mean(dim=-1)
        return Reconstruction(mean_where(error, wanted), prediction, wanted)

    def num_hidden(self, patches: int) -> int:
        """Of so many patches."""
        return round(self.mask_ratio * patches)


def refuse_nothing_to_learn(net: SimMIM) -> None:
    """Raise ValueError for a net that hides no patch, or all: as a net it may, to train it would be of no use."""
    patches = net.backbone.grid.patches
    if not 0 < (hidden := net.num_hidden(patches)) < patches:
        raise ValueError(f"mask_ratio {net.mask_ratio} hides {hidden} of {patches} patches: expected some, not all")
