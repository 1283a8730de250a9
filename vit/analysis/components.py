"""What lies near what inside a net: patches, pictures and classes in few dimensions."""

import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from torch import Tensor

from vit.layers import LinearHead

TAIL = 0.02


def patch_colours(tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n 3"]:
    """Patch tokens as colours: red, green and blue are their first three principal components, over all pictures.

    As in Oquab et al. 2024 (DINOv2), figure 1, but with the background left in; padding counts too. Patches of one
    colour are alike to the net. Each component fills 0..1 but for the outermost 2 % at either end; one that is not
    there, to a hundred-thousandth of the first, is 0.

    Raises:
        ValueError: fewer than two tokens in all.
    """
    flat = tokens.detach().double().cpu().flatten(0, 1)
    if len(flat) < 2:
        raise ValueError(f"expected two tokens or more, got {len(flat)}")
    count = min(3, *flat.shape)
    found = torch.from_numpy(PCA(count, svd_solver="full").fit_transform(flat.numpy()))
    low, high = found.quantile(TAIL, dim=0), found.quantile(1 - TAIL, dim=0)
    there = (high - low) > 1e-5 * (high - low).max()
    scaled = ((found - low) / (high - low).where(there, torch.inf)).clamp(0, 1)
    colours = torch.zeros(len(flat), 3, dtype=scaled.dtype)
    colours[:, :count] = scaled
    return colours.unflatten(0, tokens.shape[:2]).to(torch.float32)


def class_vectors(head: LinearHead, dim: int) -> Float[Tensor, "k d"]:
    """The direction among features in which each class's logit grows: its row of the linear map.

    Args:
        head: of a net.
        dim: of its features.
    """
    nothing = next(head.parameters()).new_zeros(dim)
    rows = torch.func.jacrev(lambda features: head.classify(features[None])[0])(nothing)
    return rows.detach()
