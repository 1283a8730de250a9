"""What a frozen net says of pictures: its pooled tokens or maps, by what they are."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vit.layers import ClassToken, Head, MeanPool
from vit.models import CNN, Pretraining, ViT
from vit.tokens import Layout

PATCHES, CLASS, HEAD = "mean of patches", "class token", "what the head reads"
Features = dict[str, Float[Tensor, "b d"]]


def readings(net: nn.Module) -> Callable[[Float[Tensor, "b c h w"]], Features]:
    """How to read a net: images to features by name.

    Of a backbone, pretrained or with a head, the mean of the patch tokens and, where it has one, the class token; also
    what the head's linear map reads, where that is neither. Of a CNN what its classifier reads.

    Raises:
        ValueError: another kind of net.
    """
    if isinstance(net, CNN):
        return lambda images: {HEAD: net.features(images)}
    if isinstance(net, Pretraining):
        return lambda images: _of_tokens(*net.backbone(images))
    if isinstance(net, ViT):
        return lambda images: _of_vit(net, images)
    raise ValueError(f"features are read from a ViT, a CNN or a pretrained net, got a {type(net).__name__}")


def read_by_head(net: ViT | CNN) -> Callable[[Float[Tensor, "b c h w"]], Features]:
    """How to read a net as its head's linear map does, and in no other way."""
    return lambda images: {HEAD: net.features(images)}


@torch.inference_mode()
def gathered(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    how: Callable[[nn.Module], Callable[[Float[Tensor, "b c h w"]], Features]] = readings,
) -> tuple[dict[str, Float[np.ndarray, "n d"]], Int[np.ndarray, " n"]]:
    """Features of all pictures by name, read as ``how`` says, and their labels."""
    read, device = how(net.eval()), next(net.parameters()).device
    parts: list[dict[str, np.ndarray]] = []
    labels = []
    for images, given, _ in batches:
        parts.append({name: value.float().cpu().numpy() for name, value in read(images.to(device)).items()})
        labels.append(given.numpy())
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, np.concatenate(labels)


def _of_tokens(tokens: Float[Tensor, "b n d"], layout: Layout) -> Features:
    prefix = layout.grid.prefix
    found = {PATCHES: tokens[:, len(prefix) :].mean(dim=1)}
    return found | ({CLASS: tokens[:, prefix.index("cls")]} if "cls" in prefix else {})


def _of_vit(net: ViT, images: Float[Tensor, "b c h w"]) -> Features:
    tokens, layout = net.backbone(images)
    found, head = _of_tokens(tokens, layout), net.head
    if isinstance(head, Head) and isinstance(head.pool, MeanPool | ClassToken):
        return found
    return found | {HEAD: head.features(tokens, layout)}
