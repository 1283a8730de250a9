"""A backbone that labels every patch."""

from pathlib import Path
from typing import cast, final

from jaxtyping import Float
from torch import Tensor, nn

from vit.layers import Size
from vit.models.backbone import Backbone, BackboneFactory, init_weights
from vit.spec import keeps_spec


@final
@keeps_spec
class TokenLabels(nn.Module):
    """Images (b c height width) to the logits of each patch (b n k + 1): background, then the classes of objects.

    Args:
        img_size: (height, width) or one side.
        in_chans: channels of the images.
        num_classes: classes of objects.
        backbone: images to tokens; its prefix tokens take part and are not labelled.

    Raises:
        ValueError: the backbone drops patches in training, which then would have no label.
    """

    def __init__(
        self, img_size: int | Size, in_chans: int, num_classes: int, backbone: BackboneFactory = Backbone
    ) -> None:
        super().__init__()
        self.backbone = cast(Backbone, backbone(img_size, in_chans))
        if self.backbone.patch_drop.rate > 0:
            raise ValueError(f"every patch gets a label: expected patch_drop 0, got {self.backbone.patch_drop.rate}")
        self.fc = nn.Linear(self.backbone.embed_dim, num_classes + 1)
        self.fc.apply(init_weights)

    def forward(self, images: Float[Tensor, "b c height width"]) -> Float[Tensor, "b n k"]:
        tokens, layout = self.backbone(images)
        return self.fc(tokens[:, layout.grid.num_prefix :])


def refuse_token_labels(net: nn.Module, folder: str | Path) -> None:
    """Raises ValueError for a net whose answer is one label per patch, where one per picture is wanted."""
    if isinstance(net, TokenLabels):
        raise ValueError(
            f"the model labels patches, not pictures: expected a classifier; `vit validate {folder}` tells how well it "
            "does"
        )
