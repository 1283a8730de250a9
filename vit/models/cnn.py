"""Convolutional baselines: timm's nets behind the constructor every net of this project has."""

import difflib
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.layers import Size, Sizes, pair
from vit.spec import keeps_spec

SMALL = 64
"""Images with no side above this get the small-image stem."""

NARROW = 16
"""Nets with fewer channels than this somewhere keep torch's default memory format."""

_STEM_POOLS = ("maxpool", "features.pool0")


@final
@keeps_spec
class CNN(nn.Module):
    """A convolutional net of timm: images (b c height width) to logits (b k).  He et al. 2016, Liu et al. 2022, ...

    Up to 64x64 the stem that divides the sides by 4 (ResNet's strided convolution and max-pool, ConvNeXt's 4x4 patches)
    would leave later stages nothing to see: it becomes one 3x3 convolution of stride 1, as He et al. do for CIFAR.
    Weights and images are kept channels-last, the layout convolutions are fastest in, unless a layer is narrow.
    Pretrained weights come by `vit.models.load_init`, not by an option here, so that a saved model is built again
    without a network.

    Args:
        img_size: (height, width) or one side; chooses the stem, any size is taken.
        in_chans: channels of the images.
        num_classes: logits.
        name: of a convolutional net in timm: resnet18, resnet50, convnext_tiny, ...
        drop: dropout before the classifier.
        drop_path: stochastic depth rate of the last block, where the net has it.
        width: channels over the published ones, stem included, rounded to even numbers; ResNets and ConvNeXts only.

    Raises:
        ValueError: timm has no such net, it is no convolutional one, or it lacks an option that is set.
    """

    def __init__(
        self,
        img_size: int | Size,
        in_chans: int,
        num_classes: int,
        name: str = "resnet18",
        drop: float = 0.0,
        drop_path: float = 0.0,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.in_chans, self.num_classes, self.name = in_chans, num_classes, name
        self.small_stem = max(pair(img_size)) <= SMALL
        stem = stem_of(name)
        self.net = _timm_net(name, in_chans, num_classes, drop, drop_path, width)
        if self.small_stem:
            _shrink_stem(self.net, stem)
        self._format = _memory_format(self.net)
        self.to(memory_format=self._format)

    def forward(self, images: Float[Tensor, "b c height width"], sizes: Sizes | None = None) -> Float[Tensor, "b k"]:
        """
        Raises:
            ValueError: wrong channel count, or ``sizes`` of padded pictures.
        """
        return self.net(self._formatted(images, sizes))

    def features(self, images: Float[Tensor, "b c height width"], sizes: Sizes | None = None) -> Float[Tensor, "b d"]:
        """What the classifier's last linear map sees: timm's ``pre_logits``.

        Raises:
            ValueError: wrong channel count, or ``sizes`` of padded pictures.
        """
        return self.with_features(images, sizes)[1]

    def with_features(
        self, images: Float[Tensor, "b c height width"], sizes: Sizes | None = None
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d"]]:
        """Logits and `features` in one pass.

        Raises:
            ValueError: wrong channel count, or ``sizes`` of padded pictures.
        """
        net: Any = self.net
        maps = net.forward_features(self._formatted(images, sizes))
        return net.forward_head(maps), net.forward_head(maps, pre_logits=True)

    def _formatted(self, images: Tensor, sizes: Sizes | None) -> Tensor:
        if images.shape[1] != self.in_chans:
            raise ValueError(f"the model takes images of {self.in_chans} channels, got {images.shape[1]}")
        if sizes is not None:
            raise ValueError("a CNN sees padding as part of the picture: expected pictures of one size, got sizes")
        return images.contiguous(memory_format=self._format)


def _memory_format(net: nn.Module) -> torch.memory_format:
    """Channels-last but for narrow nets, whose backward pass crashes in oneDNN (8 channels, 64x64, torch 2.15)."""
    narrowest = min(module.out_channels for module in net.modules() if isinstance(module, nn.Conv2d))
    return torch.channels_last if narrowest >= NARROW else torch.contiguous_format


def timm_config(name: str) -> Any:
    """What timm knows of a net of its own, by name with or without tag (its ``PretrainedCfg``).

    Raises:
        ValueError: timm has no net of this name (the nearest are named) or no such tag.
    """
    import timm  # costs seconds, so only nets that need it wait for it

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3) or ["resnet18", "convnext_tiny"]
        raise ValueError(f"timm has no net {name!r}: expected a name such as {', '.join(near)}")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ValueError(f"timm:{name}: {error}") from error
    if config is None:
        raise ValueError(f"timm describes no net {name!r}")
    return config


def stem_of(name: str) -> str:
    """Path of the first convolution of a timm net.

    Raises:
        ValueError: the net does not begin with one convolution over pixels (ViTs, mixers) or is made for one size.
    """
    config = timm_config(name)
    if not isinstance(config.first_conv, str) or config.first_conv.endswith(".proj") or config.fixed_input_size:
        raise ValueError(f"{name} is no convolutional net: expected one such as resnet18; for ViTs use vit.models.ViT")
    return config.first_conv


def _timm_net(name: str, in_chans: int, num_classes: int, drop: float, drop_path: float, width: float) -> nn.Module:
    import timm

    options = {"in_chans": in_chans, "num_classes": num_classes, "drop_rate": drop}
    options["drop_path_rate"] = drop_path or None  # timm leaves out what is None, and not every net knows the option
    try:
        if width == 1:
            return timm.create_model(name, **options)
        channels = _channels(name, width)
        net = timm.create_model(name, **options, **channels)
    except TypeError as error:
        raise ValueError(f"timm cannot build {name!r}: {error}") from error
    if "stem_type" in channels:
        _single_stem(net, in_chans)
    return net


def _channels(name: str, width: float) -> dict[str, Any]:
    """timm's options for ``width`` times the published channels."""
    import timm

    if width <= 0:
        raise ValueError(f"width must be above 0, got {width}")
    family = timm.model_entrypoint(name.partition(".")[0]).__module__
    if family not in ("timm.models.resnet", "timm.models.convnext"):
        raise ValueError(f"only ResNets and ConvNeXts have a width: expected 1 for {name}, got {width}")
    with torch.device("meta"):  # only its shapes are read
        published: Any = timm.create_model(name)
    counts = [stage["num_chs"] for stage in published.feature_info]
    if family == "timm.models.convnext":
        return {"dims": tuple(_scaled(count, width) for count in counts)}
    block, (stem, *stages) = published.layer1[0], counts
    channels = tuple(_scaled(count // block.expansion, width) for count in stages)
    group = block.conv2.out_channels // block.conv2.groups
    if channels[0] * group < stages[0] // block.expansion:
        raise ValueError(f"{name} has groups of {group} channels, which leave none at width {width}")
    stem_width = _scaled(stem, width) // 2
    if isinstance(published.conv1, nn.Sequential):
        return {"channels": channels, "stem_width": max(stem_width, 4)}  # tiered stems begin with 3 x (stem_width // 4)
    # timm fixes a single convolution's channels, so a deep stem keeps its place until `_single_stem`
    return {"channels": channels, "stem_width": stem_width, "stem_type": "deep"}


def _scaled(channels: int, width: float) -> int:
    return 2 * max(round(channels * width / 2), 1)


def _single_stem(net: Any, in_chans: int) -> None:
    """A ResNet's deep stem becomes the single convolution of He et al. 2016, table 1."""
    net.conv1 = nn.Conv2d(in_chans, net.conv1[-1].out_channels, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")


def _shrink_stem(net: nn.Module, path: str) -> None:
    old = net.get_submodule(path)
    if not isinstance(old, nn.Conv2d):
        raise ValueError(f"{path} is a {type(old).__name__}: expected a net that begins with a convolution")
    new = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=old.bias is not None)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    net.set_submodule(path, new)
    modules = dict(net.named_modules())
    for pool in _STEM_POOLS:
        if pool in modules:
            net.set_submodule(pool, nn.Identity())
