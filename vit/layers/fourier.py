"""Mixing by a Fourier transform."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.layers.honour import check_tokens, refuse_order, refuse_padding, refuse_pairs, refuse_subset
from vit.tokens import Grid, Layout


@final
class Fourier(nn.Module):
    """Re FFT_tokens(FFT_channels(x)) / sqrt(n c): no parameters.  Lee-Thorp et al. 2021 (FNet), eq. 3.

    They do not divide; post-norm hides the size of the sum from them, while a pre-norm block would add n c-fold
    variance to its residual. All tokens take part in order, prefix tokens first. Time n log n c.

    Raises:
        ValueError: when called: any mask, a kept subset (its tokens have lost their places), or other than the
            layout's tokens.
    """

    def __init__(self, dim: int, grid: Grid) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        check_tokens(x, layout)
        refuse_subset(self, layout)
        refuse_padding(self, layout)
        refuse_order(self, layout)
        refuse_pairs(self, layout)
        with torch.autocast(x.device.type, enabled=False):  # CPUs have no FFT in half precision
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            return torch.fft.fft2(wide, norm="ortho").real.to(x.dtype)
