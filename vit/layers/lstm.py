"""Mixing by a recurrent network."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.checks import refuse_pairs, refuse_prefix_length, require_at_least, require_tokens
from vit.layers.scan import padding_last, reordered
from vit.tokens import Grid, Layout


@final
class BiLstm(nn.Module):
    """proj of an LSTM that reads the tokens forwards beside one that reads them backwards.

    Hochreiter & Schmidhuber 1997; in a ViT's block: Tatsunami & Taki 2022 (Sequencer), the plain form, of one sequence.
    `Scan` sets another order of patches than raster; prefix tokens are the first of the sequence. Time n steps, one
    after the other. Padded tokens are read last and change nothing; of a kept subset the rest is the sequence. Under a
    causal mask the backward half is zero. Its state is in float32 inside autocast: a running sum loses digits in less.

    Args:
        dim: channels.
        grid: unused.
        hidden_dim: width of each direction's state, dim / 4 as theirs when None.

    Raises:
        ValueError: ``hidden_dim`` is below 1. When called: a mask of pairs or a prefix length, or other than the
            layout's tokens.
    """

    def __init__(self, dim: int, grid: Grid, hidden_dim: int | None = None) -> None:
        super().__init__()
        hidden = require_at_least(1, dim // 4 if hidden_dim is None else hidden_dim, "hidden_dim")
        self.forwards = nn.LSTM(dim, hidden, batch_first=True)
        self.backwards = nn.LSTM(dim, hidden, batch_first=True)
        self.proj = nn.Linear(2 * hidden, dim)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        require_tokens(self, layout, x.shape[1])
        refuse_pairs(self, layout)
        refuse_prefix_length(self, layout)
        keys = layout.keys
        keys = x.new_ones(x.shape[:2], dtype=torch.bool) if keys is None else keys
        order = padding_last(keys)
        # the same tokens from the last to the first, padding still at the end
        back = x.shape[1] - 1 - padding_last(keys.flip(1))
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(self.proj.weight.dtype)
            ahead = reordered(self.forwards(reordered(wide, order))[0], order.argsort(dim=1))
            if layout.mask is not None and layout.mask.causal:
                behind = torch.zeros_like(ahead)
            else:
                behind = reordered(self.backwards(reordered(wide, back))[0], back.argsort(dim=1))
        return self.proj(torch.cat((ahead, behind), dim=-1))
