"""Which part of a net is which: its head, and how deep a weight lies."""

import re

from torch import nn

from vit.layers import DistilledHead, SelfAttention
from vit.models.cnn import CNN, timm_config
from vit.models.vit import ViT

_BLOCK = re.compile(r"^backbone\.encoder\.blocks\.(\d+)\.")
_STAGE = re.compile(r"^(net\.)?\w+(\.\d+)?")
_INPUT = ("backbone.patch_embed.", "backbone.prefix_tokens", "backbone.pos_embed.")


def head_of(net: nn.Module) -> tuple[str, ...]:
    """Paths of the linear maps to logits, and last of the whole head, what belongs to the classes of the data.

    Raises:
        ValueError: a net that does not classify.
    """
    if isinstance(net, ViT):
        maps = ("head.fc", "head.fc_dist") if isinstance(net.head, DistilledHead) else ("head.fc",)
        return (*maps, "head")
    if isinstance(net, CNN):
        return (f"net.{timm_config(net.name).classifier}",)
    raise ValueError(f"expected a net that classifies, a ViT or a CNN; got a {type(net).__name__}")


def attention_of(net: nn.Module) -> list[str]:
    """Paths of the self-attention in the blocks, in order."""
    return [path for path, module in net.named_modules() if isinstance(module, SelfAttention)]


def depths(net: nn.Module) -> dict[str, int]:
    """How deep each parameter lies, from 0 for what reads pixels up to the head.

    In a ViT the blocks count one each, the final norm and the head one more; in other nets what comes one after another
    (``layer1.0``, ``layer1.1``, ...) in the order of their parameters.
    """
    names = [name for name, _ in net.named_parameters()]
    if isinstance(net, ViT):
        last = len(net.backbone.encoder.blocks) + 1
        return {name: _depth(name, last) for name in names}
    order = list(dict.fromkeys(_STAGE.match(name)[0] for name in names))  # pyright: ignore[reportOptionalSubscript]
    return {name: order.index(_STAGE.match(name)[0]) for name in names}  # pyright: ignore[reportOptionalSubscript]


def _depth(name: str, last: int) -> int:
    if name.startswith(_INPUT):
        return 0
    block = _BLOCK.match(name)
    return last if block is None else int(block[1]) + 1
