import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.test_configs import net_of
from vit.models import VARIANTS, plain_vit
from vit.spec import build, spec


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("name", ["pico", "nano", "lite", "tiny", "small"])
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
    with pytest.raises(ValueError, match=r"^unknown variant 'huge': expected one of pico, nano, lite, .*large$"):
        plain_vit("huge", 32, 3, 10)


@pytest.mark.parametrize(
    ("size", "data"),
    [
        ("pico", "mnist"),
        pytest.param("pico", "cifar10", marks=pytest.mark.slow),
        *(
            pytest.param(size, data, marks=pytest.mark.slow)
            for size in ("nano", "tiny")
            for data in ("mnist", "cifar10")
        ),
    ],
)
def test_a_hybrid_has_the_parameters_and_the_shape_of_its_vit(size: str, data: str) -> None:
    vit, hybrid = (net_of(f"model/{kind}_{size}", f"data/{data}") for kind in ("vit", "conformer"))
    assert parameters(hybrid) == pytest.approx(parameters(vit), rel=0.05)
    for net in (vit, hybrid):
        blocks = net.backbone.encoder.blocks
        shape = (net.backbone.embed_dim, len(blocks), blocks[0].mixer.num_heads)
        assert shape == VARIANTS[size][:3]
        assert blocks[0].residual1.drop_path.rate == 0.0
    ends = [net.backbone.encoder.blocks[-1].residual1.drop_path.rate for net in (vit, hybrid)]
    assert ends[0] == ends[1]


def test_the_three_nets_of_a_study_have_as_many_parameters() -> None:
    counts = [parameters(net_of(f"model/{name}_pico", "data/mnist")) for name in ("vit", "conformer", "resnet")]
    assert max(counts) < 1.05 * min(counts)
    assert counts[0] == 114_490


@pytest.mark.parametrize("name", ["conformer_pico", "resnet_pico"])
def test_a_net_built_from_yaml_comes_back_from_its_spec(name: str) -> None:
    net, images = net_of(f"model/{name}", "data/mnist").eval(), torch.randn(2, 1, 28, 28)
    again = build(json.loads(json.dumps(spec(net)))).eval()
    again.load_state_dict(net.state_dict())
    assert_close(again(images), net(images), rtol=0, atol=0)


def test_the_mlp_and_the_kernel_of_a_hybrid_are_options() -> None:
    block = "--model.init_args.net.init_args.backbone.init_args.block.init_args"
    options = (f"{block}.mlp.init_args.mlp_ratio=2.0", f"{block}.conv.init_args.kernel_size=[3, 5]")
    last = net_of("model/conformer_pico", "data/mnist", args=options).backbone.encoder.blocks[-1]
    assert last.mlp1.fc1.out_features == last.mlp2.fc1.out_features == 96
    assert last.conv.depthwise.kernel_size == (3, 5)
