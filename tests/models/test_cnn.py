import pytest
import torch
from torch import nn

from vit.models import CNN


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


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, "timm has no net 'resnet81': expected a name such as resnet"),
        ("resnet18.mine", {}, r"timm:resnet18.mine: Invalid pretrained tag \(mine\)"),
        ("vit_tiny_patch16_224", {}, "vit_tiny_patch16_224 is no convolutional net: .* use vit.models.ViT"),
        ("coatnet_0_rw_224", {}, "coatnet_0_rw_224 is no convolutional net"),
        ("vgg11", {"drop_path": 0.1}, "timm cannot build 'vgg11': .* 'drop_path_rate'"),
    ],
)
def test_bad_names_and_options_are_told(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as raised:
        CNN(32, 3, 10, name, **options)
    assert "\n" not in str(raised.value)
