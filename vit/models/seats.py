"""Which parts of our nets timm's VisionTransformer can hold."""

from collections.abc import Iterator

from torch import nn

from vit import layers
from vit.attention import Softmax
from vit.models.backbone import Backbone
from vit.models.vit import ViT

_SEATED = (
    ViT,
    Backbone,
    layers.PatchEmbed,
    layers.LearnedPositions,
    layers.NoPositions,
    layers.PatchDropout,
    layers.Encoder,
    layers.Block,
    layers.SelfAttention,
    Softmax,
    layers.Mlp,
    layers.SwiGLU,
    layers.LayerNorm,
    nn.RMSNorm,
    layers.Residual,
    layers.LayerScale,
    layers.DropPath,
    layers.Head,
    layers.DistilledHead,
    layers.ClassToken,
    layers.MeanPool,
    layers.MaxPool,
    layers.MapPool,
    layers.CrossAttention,
    nn.ModuleList,
    nn.Linear,
    nn.Conv2d,
    nn.Dropout,
    nn.GELU,
    nn.Identity,
)


def parts_without_seat(net: ViT) -> list[str]:
    """Each part of the net that timm's VisionTransformer cannot compute, by path and kind; empty when all can move."""
    foreign: list[str] = []
    for path, module in net.named_modules():
        if type(module) not in _SEATED and not path.startswith(tuple(f"{outer}." for outer in foreign)):
            foreign.append(path)
    named = [f"{path} ({type(net.get_submodule(path)).__name__})" for path in foreign]
    return [*named, *_options_without_seat(net)]


def _options_without_seat(net: ViT) -> Iterator[str]:
    """Options that the seated classes have and timm's lack; a state dict would carry them over unseen."""
    for path, module in net.named_modules():
        if isinstance(module, layers.Encoder) and len(module.blocks) < len(module.layers):
            yield f"{path} (shared layers)"
        if isinstance(module, Softmax) and module.scale is not None:
            yield f"{path} (scale {module.scale})"
        if isinstance(module, layers.SelfAttention) and len(set(module.widths)) > 1:
            yield f"{path} (values of another width than queries)"
    activations = {str(module) for module in net.modules() if isinstance(module, nn.GELU)}
    if len(activations) > 1:
        yield f"different activations ({', '.join(sorted(activations))})"
    attention = [m for m in net.modules() if isinstance(m, layers.SelfAttention | layers.CrossAttention)]
    if len({module.num_heads for module in attention}) > 1:
        yield f"heads of different number ({', '.join(str(module.num_heads) for module in attention)})"
    yield from _tokens_without_seat(net)


def _tokens_without_seat(net: ViT) -> Iterator[str]:
    prefix, head = net.backbone.grid.prefix, net.head
    registers = ("reg",) * prefix.count("reg")
    if prefix not in (registers, ("cls", *registers), ("cls", "dist")):
        yield f"backbone.prefix_tokens {list(prefix)}"
    elif ("dist" in prefix) != isinstance(head, layers.DistilledHead):
        yield f"head ({type(head).__name__}) on prefix tokens {list(prefix)}"
    pool = head.pool if isinstance(head, layers.Head) else None
    if isinstance(pool, layers.ClassToken) and prefix[pool.position] != "cls":
        yield f"head.pool (reads {prefix[pool.position]})"
