"""A net's answer in training, with what a hard readout drew for it."""

from jaxtyping import Float
from torch import Tensor, nn

from vit.layers import Choice, Head, ReinforcePool, Sizes
from vit.models.vit import ViT


def answer(
    net: nn.Module, images: Float[Tensor, "b c h w"], sizes: Sizes | None = None
) -> tuple[Float[Tensor, "b k"], Choice | None]:
    """Logits, and the choice of a net that reads its tokens with a `ReinforcePool`, whose term joins the loss.

    Args:
        net: images -> logits.
        images: a batch.
        sizes: of pictures padded to it, for a net that takes them.
    """
    if isinstance(net, ViT) and isinstance(net.head, Head) and isinstance(net.head.pool, ReinforcePool):
        choice = net.head.pool.choose(*net.backbone(images, sizes))
        return net.head.classify(net.head.drop(choice.pooled)), choice
    return net(images) if sizes is None else net(images, sizes), None
