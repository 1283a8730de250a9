import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vit.models import CNN

LAYERS = ["layer1", "layer2", "layer3", "layer4"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "stem"),
    [("resnet18", "conv1"), ("resnet50", "conv1"), ("resnet50d", "conv1.0"), ("convnext_tiny", "stem.0")],
)
def test_small_images_get_the_small_stem(name: str, stem: str) -> None:
    net = CNN(32, 3, 10, name)
    conv = net.net.get_submodule(stem)
    assert (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
    features = net.eval().net.forward_features(torch.randn(1, 3, 32, 32))
    assert features.shape[-2:] == (4, 4)  # three halvings between four stages, none in the stem


@pytest.mark.parametrize(
    ("img_size", "small"), [(64, True), ((64, 48), True), (65, False), ((32, 96), False), (224, False)]
)
def test_the_stem_follows_the_image_size(img_size: int | tuple[int, int], small: bool) -> None:
    net = CNN(img_size, 3, 10)
    assert net.small_stem is small
    assert isinstance(net.net.maxpool, nn.Identity if small else nn.MaxPool2d)
    assert net.net.conv1.kernel_size == ((3, 3) if small else (7, 7))


def test_a_narrow_net_trains_on_64x64() -> None:
    """In channels-last, oneDNN of torch 2.15 crashes here: a subprocess, so that a crash is a failure."""
    code = (
        "import torch; from vit.models import CNN; torch.set_num_threads(1);"
        "net = CNN(64, 3, 10, 'resnet18', width=0.125); net(torch.randn(8, 3, 64, 64)).sum().backward()"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0
    assert CNN(28, 1, 10, "resnet18", width=0.1).net.conv1.weight.is_contiguous()


def test_weights_and_images_are_channels_last() -> None:
    net, seen = CNN((16, 24), 3, 10), []
    for module in (net.net.conv1, net.net.layer1):
        module.register_forward_hook(lambda module, inputs, output: seen.extend((*inputs, output)))
    net(torch.randn(2, 3, 16, 24))
    assert [tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen] == [True] * 4
    weight = net.net.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    net.load_state_dict({name: value.contiguous() for name, value in net.state_dict().items()})
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_stochastic_depth_reaches_the_last_block() -> None:
    assert CNN(32, 3, 10, drop_path=0.3).net.layer4[-1].drop_path.drop_prob == pytest.approx(0.3)


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("name", "width", "stem", "stages"),
    [
        ("resnet18", 0.125, 8, [8, 16, 32, 64]),
        ("resnet18", 0.1, 6, [6, 12, 26, 52]),
        ("resnet18", 0.001, 2, [2, 2, 2, 2]),
        ("resnet26", 0.25, 16, [64, 128, 256, 512]),
        ("resnet10t", 0.25, 16, [16, 32, 64, 128]),
        ("seresnext26d_32x4d", 0.25, 16, [64, 128, 256, 512]),
        ("convnext_atto", 0.25, 10, [10, 20, 40, 80]),
        ("resnet10t", 1.5, 96, [96, 192, 384, 768]),
    ],
)
@pytest.mark.parametrize("img_size", [32, 96])
def test_width_multiplies_the_channels(name: str, width: float, stem: int, stages: list[int], img_size: int) -> None:
    net, seen = CNN(img_size, 3, 7, name, width=width), []
    convnext = "convnext" in name
    parts = ["stem", "stages.0", "stages.1", "stages.2", "stages.3"] if convnext else ["conv1", *LAYERS]
    for part in map(net.net.get_submodule, parts):
        part.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    assert net.eval()(torch.randn(2, 3, img_size, img_size)).shape == (2, 7)
    assert seen == [stem, *stages]


def test_a_narrow_net_is_the_published_one_scaled() -> None:
    """Same layers, shortcuts and strides; only channels differ."""
    for name in ("resnet18", "resnet26"):
        narrow, wide = CNN(96, 3, 10, name, width=0.25), CNN(96, 3, 10, name)
        assert narrow.state_dict().keys() == wide.state_dict().keys()
        for part, other in zip(narrow.modules(), wide.modules(), strict=True):
            assert type(part) is type(other)
            if isinstance(part, nn.Conv2d):
                expected = (other.kernel_size, other.stride, other.padding, other.groups, other.bias)
                assert (part.kernel_size, part.stride, part.padding, part.groups, part.bias) == expected
                assert part.out_channels == other.out_channels / 4
    assert parameters(CNN(32, 3, 10, width=0.125)) == 176_402  # 11,173,962 / 64 = 174,593 and what grows linearly


def test_width_one_changes_nothing() -> None:
    torch.manual_seed(0)
    plain = CNN(32, 3, 10, "resnet10t").state_dict()
    torch.manual_seed(0)
    one = CNN(32, 3, 10, "resnet10t", width=1).state_dict()
    assert plain.keys() == one.keys() and all(torch.equal(one[name], plain[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, "timm has no net 'resnet81': expected a name such as resnet"),
        ("resnet18.mine", {}, r"timm:resnet18.mine: Invalid pretrained tag \(mine\)"),
        ("vit_tiny_patch16_224", {}, "vit_tiny_patch16_224 is no convolutional net: .* use vit.models.ViT"),
        ("coatnet_0_rw_224", {}, "coatnet_0_rw_224 is no convolutional net"),
        ("vgg11", {"drop_path": 0.1}, "timm cannot build 'vgg11': .* 'drop_path_rate'"),
        ("vgg11", {"width": 0.5}, "only ResNets and ConvNeXts have a width: expected 1 for vgg11, got 0.5$"),
        ("resnet18", {"width": 0.0}, "width must be above 0, got 0.0$"),
        ("resnet18", {"width": -1.0}, "width must be above 0, got -1.0$"),
        ("resnext50_32x4d", {"width": 0.1}, "resnext50_32x4d has groups of 4 channels, which leave none at width 0.1$"),
    ],
)
def test_bad_names_and_options_are_told(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as raised:
        CNN(32, 3, 10, name, **options)
    assert "\n" not in str(raised.value)
