"""Mixing by a Fourier transform."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.checks import refuse_causal, refuse_padding, refuse_pairs, refuse_subset, require_tokens
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
        require_tokens(self, layout, x.shape[1])
        refuse_subset(self, layout)
        refuse_padding(self, layout)
        refuse_causal(self, layout)
        refuse_pairs(self, layout)
        with torch.autocast(x.device.type, enabled=False):  # CPUs have no FFT in half precision
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            return torch.fft.fft2(wide, norm="ortho").real.to(x.dtype)
