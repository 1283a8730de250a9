"""Place read from tokens."""

from functools import partial

import pytest
import torch

from vit.analysis.place import place_known
from vit.layers import Block, NoPositions, NoResidualBlock, SinCos2d
from vit.models import Backbone


def _backbone(**parts):
    return Backbone((12, 20), 3, patch_size=4, embed_dim=36, depth=3, prefix=("cls",), **parts)


def test_positions_can_be_read_and_noise_cannot():
    images = torch.randn(40, 3, 12, 20)
    known = place_known(_backbone(pos_embed=SinCos2d), 0.1 * images)
    assert len(known) == 4
    assert known[0] > 0.95
    assert max(place_known(_backbone(pos_embed=NoPositions), images)) < 0.1


def test_residuals_keep_the_place():
    images = torch.randn(20, 3, 12, 20)
    kept, lost = (
        place_known(_backbone(pos_embed=SinCos2d, block=partial(block)), images)[-1]
        for block in (Block, NoResidualBlock)
    )
    assert kept > lost + 0.1


def test_the_backbone_is_left_in_its_mode_and_one_picture_is_refused():
    backbone, images = _backbone(drop_path=0.9).train(), torch.randn(2, 3, 12, 20)
    known = place_known(backbone, images)
    assert backbone.training
    assert place_known(backbone.eval(), images) == known  # nothing was dropped
    with pytest.raises(ValueError, match="two pictures or more"):
        place_known(backbone, torch.randn(1, 3, 12, 20))
