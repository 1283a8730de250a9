import pytest
import torch

from vit.models import VARIANTS, plain_vit


@pytest.mark.parametrize("name", ["nano", "lite", "tiny", "small"])
def test_named_sizes_are_what_the_table_says(name: str) -> None:
    net, variant = plain_vit(name, (32, 48), 1, 7), VARIANTS[name]
    assert net(torch.randn(1, 1, 32, 48)).shape == (1, 7)
    assert len(net.backbone.encoder.blocks) == variant.depth
    block = net.backbone.encoder.blocks[0]
    assert (block.mixer.num_heads, block.mixer.qkv.in_features) == (variant.num_heads, variant.embed_dim)
    assert block.mlp.fc1.out_features == 4 * variant.embed_dim
    assert net.backbone.patch_size == (4, 4)
    assert plain_vit(name, 32, 1, 7, patch_size=8).backbone.patch_size == (8, 8)


def test_unknown_sizes_are_told() -> None:
    with pytest.raises(ValueError, match=r"^unknown variant 'huge': expected one of nano, lite, .*large$"):
        plain_vit("huge", 32, 3, 10)
