"""What every pretraining net is: a backbone that learns to predict patches, and how well it did on a batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vit.layers import patch_grid
from vit.models.backbone import Backbone
from vit.models.patchify import PatchTarget, patchify, unpatchify
from vit.tokens import Layout

SAME = 1e-5
"""Tokens that differ by less, relative to the largest, count as equal."""


class Reconstruction(NamedTuple):
    """Each image's loss, the patches predicted (in the net's own units), and those that had to be: True counts."""

    loss: Float[Tensor, " b"]
    prediction: Float[Tensor, "b n p"]
    wanted: Bool[Tensor, "b n"]


class Pretraining(nn.Module, ABC):
    """A `Backbone`, by that name and as it is, with what it takes to learn from pictures without labels.

    Called ``(images (b c h w), noise (b n)) -> Reconstruction``. The noise, uniform in [0, 1) for each patch, decides
    what is hidden: the caller draws it, so that a step, or a validation picture, can be repeated.
    """

    backbone: Backbone
    target: PatchTarget

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c height width"], noise: Float[Tensor, "b n"]) -> Reconstruction: ...

    def num_patches(self, images: Float[Tensor, "b c height width"]) -> int:
        """Patches of each image: the noise that `forward` wants."""
        height, width = patch_grid(images.shape[2], images.shape[3], self.backbone.patch_size)
        return height * width

    def features(self, images: Float[Tensor, "b c height width"]) -> Float[Tensor, "b d"]:
        """Mean of the patch tokens of the whole image, nothing hidden."""
        tokens, layout = self.backbone(images)
        return tokens[:, layout.grid.num_prefix :].mean(dim=1)

    @torch.no_grad()
    def pictures(
        self, images: Float[Tensor, "b c height width"], found: Reconstruction
    ) -> tuple[Float[Tensor, "b c height width"], Float[Tensor, "b c height width"]]:
        """The images with the wanted patches taken out (not a number there), and with the predicted ones put in."""
        images, patch_size, size = images.float(), self.backbone.patch_size, (images.shape[2], images.shape[3])
        patches, wanted = patchify(images, patch_size), found.wanted[..., None]
        predicted = self.target.pixels(found.prediction.float(), images)
        hidden, filled = patches.masked_fill(wanted, float("nan")), torch.where(wanted, predicted, patches)
        return unpatchify(hidden, patch_size, size), unpatchify(filled, patch_size, size)


def mean_where(values: Float[Tensor, "b n"], wanted: Bool[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Mean of the wanted values of each image, 0 where none is."""
    return (values * wanted).sum(dim=1) / wanted.sum(dim=1).clamp(min=1)


def require_several_patches(name: str, backbone: Backbone) -> None:
    """Refuse (ValueError) a grid of one patch, with nothing to predict it from, and patches left out at random."""
    if backbone.grid.patches < 2:
        raise ValueError(f"{name} predicts patches from others: expected an image of at least 2, got 1")
    if (rate := backbone.patch_drop.rate) > 0:
        raise ValueError(f"{name} itself decides which patches are seen: expected patch_drop 0, got {rate}")


@torch.no_grad()
def require_own_pixels(name: str, backbone: Backbone) -> None:
    """Refuse (ValueError) a backbone whose patch tokens depend on pixels of other patches, found by changing one."""
    height, width = (side * patch for side, patch in zip(backbone.grid[:2], backbone.patch_size, strict=True))
    drawn, where = torch.Generator().manual_seed(0), backbone.prefix_tokens
    images = torch.randn(2, backbone.in_chans, height, width, generator=drawn).to(where)
    patches = patchify(images, backbone.patch_size)
    changed = backbone.grid.patches // 2
    others = torch.arange(backbone.grid.patches, device=patches.device) != changed
    patches[1, others] = patches[0, others]
    with evaluating(backbone):
        tokens, layout = backbone.embed(unpatchify(patches, backbone.patch_size, (height, width)))
    first, second = tokens[:, layout.grid.num_prefix :][:, others]
    if (first - second).abs().amax() > SAME * first.abs().amax():
        raise ValueError(
            f"{name} needs patch tokens that know their own pixels only, but {type(backbone.patch_embed).__name__} "
            "looks at other patches: expected vit.layers.PatchEmbed; SimMIM blanks hidden pixels and takes any"
        )


@torch.no_grad()
def require_layout(name: str, need: str, advice: str, backbone: Backbone, layout: Layout) -> None:
    """Refuse (ValueError) a backbone whose parts refuse ``layout``, found by trying."""
    tokens = torch.zeros(1, layout.tokens, backbone.embed_dim).to(backbone.prefix_tokens)
    try:
        with evaluating(backbone):
            backbone.encode(tokens, layout)
    except ValueError as error:
        raise ValueError(f"{name} needs {need}, which a part of the backbone refuses: {error}; {advice}") from error


def refuse_pretrained(net: nn.Module, where: object) -> None:
    """Raise ValueError for a net that knows no classes yet; ``where`` it lies is named."""
    if isinstance(net, Pretraining):
        raise ValueError(
            f"{where} holds a pretrained {type(net).__name__}, which knows no classes: "
            f"`vit fit -c finetune --model.init_from {where}` makes a classifier of it"
        )


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Within: all modules in eval mode; after, each as it was."""
    training = [module for module in net.modules() if module.training]
    try:
        net.eval()
        yield
    finally:
        for module in training:
            module.training = True
