"""Mixup and CutMix: a batch blended with a shuffled copy of itself, labels in the same proportion."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Beta

Images = Float[Tensor, "b c h w"]
Targets = Float[Tensor, "b k"]


class Mixing:
    """Mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019), chosen evenly per batch when both are on.

    Works on any batch size: a single picture is blended with itself, that is, left as it is.  All randomness is drawn
    on the CPU from torch's global generator, so it is the same on every device.

    Args:
        mixup_alpha: Share of the partner is drawn from Beta(alpha, alpha); 0 turns Mixup off.
        cutmix_alpha: The same for the area of CutMix's box; 0 turns CutMix off.
        probability: Of mixing a batch at all.

    Raises:
        ValueError: an alpha below 0, or a probability outside [0, 1].
    """

    def __init__(self, mixup_alpha: float = 0.0, cutmix_alpha: float = 0.0, probability: float = 1.0) -> None:
        if min(mixup_alpha, cutmix_alpha) < 0:
            raise ValueError(f"alphas must be 0 or more, got mixup_alpha={mixup_alpha}, cutmix_alpha={cutmix_alpha}")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must lie in 0..1, got {probability}")
        self.alphas = {_mixup: mixup_alpha, _cutmix: cutmix_alpha}
        self.probability = probability

    def __call__(self, images: Images, targets: Targets) -> tuple[Images, Targets]:
        """Blend one batch; targets are one-hot or soft.  The arguments are left unchanged."""
        ways = [(way, alpha) for way, alpha in self.alphas.items() if alpha > 0]
        if not ways or torch.rand(()) >= self.probability:
            return images, targets
        way, alpha = ways[int(torch.randint(len(ways), ()))]
        keep = float(Beta(alpha, alpha).sample())
        partner = torch.randperm(len(images)).to(images.device)
        images, keep = way(images, images[partner], keep)
        return images, keep * targets + (1 - keep) * targets[partner]


def _mixup(images: Images, partners: Images, keep: float) -> tuple[Images, float]:
    return keep * images + (1 - keep) * partners, keep


def _cutmix(images: Images, partners: Images, keep: float) -> tuple[Images, float]:
    """A box of the partner, of share 1 - keep before the border clips it; returns the share that was really kept."""
    height, width = images.shape[-2:]
    side = math.sqrt(1 - keep)
    rows, columns = _extent(height, side), _extent(width, side)
    mixed = images.clone()
    mixed[..., rows, columns] = partners[..., rows, columns]
    replaced = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, 1 - replaced / (height * width)


def _extent(length: int, share: float) -> slice:
    size = round(share * length)
    start = int(torch.randint(length, ())) - size // 2
    return slice(max(0, start), min(length, start + size))
