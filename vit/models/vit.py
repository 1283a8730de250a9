"""The Vision Transformer: a backbone and a head."""

from typing import cast, final

from jaxtyping import Float
from torch import Tensor, nn

from vit.layers import Head, HeadFactory, Size, Sizes
from vit.models.backbone import Backbone, BackboneFactory, init_weights
from vit.spec import keeps_spec


@final
@keeps_spec
class ViT(nn.Module):
    """Images (b c height width) to logits (b k).  Dosovitskiy et al. 2021.

    The hybrid is this class too: a backbone with a conv stem and Conformer blocks is a config.

    Args:
        img_size: (height, width) or one side.
        in_chans: channels of the images.
        num_classes: logits.
        backbone: images to tokens.
        head: tokens to logits.
    """

    def __init__(
        self,
        img_size: int | Size,
        in_chans: int,
        num_classes: int,
        backbone: BackboneFactory = Backbone,
        head: HeadFactory = Head,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = cast(Backbone, backbone(img_size, in_chans))
        self.head = head(self.backbone.embed_dim, self.backbone.grid, num_classes)
        self.head.apply(init_weights)

    def forward(self, images: Float[Tensor, "b c height width"], sizes: Sizes | None = None) -> Float[Tensor, "b k"]:
        """Logits; ``sizes`` (b 2), in pixels, of pictures padded to one batch, see `Backbone.embed`."""
        return self.head(*self.backbone(images, sizes))

    def features(self, images: Float[Tensor, "b c height width"], sizes: Sizes | None = None) -> Float[Tensor, "b d"]:
        """What the head's linear map sees: the pooled tokens; both tokens side by side of a `DistilledHead`."""
        return self.head.features(*self.backbone(images, sizes))

    def with_features(
        self, images: Float[Tensor, "b c height width"], sizes: Sizes | None = None
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d"]]:
        """Logits and `features` in one pass."""
        features = self.features(images, sizes)
        return self.head.classify(features), features
