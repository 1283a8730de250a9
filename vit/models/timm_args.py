"""The options under which timm builds a net of ours: what a state dict of `to_timm` does not say."""

import math
from typing import Any

from torch import nn

from vit import layers
from vit.models.vit import ViT
from vit.models.weights import compact

_POOLS = {layers.ClassToken: "token", layers.MeanPool: "avg", layers.MaxPool: "max", layers.MapPool: "map"}


def timm_args(net: ViT) -> tuple[str, dict[str, Any]]:
    """An architecture of timm and its options as plain data, for a net that `to_timm` takes.

    The architecture is the plain one; the options, which say all that differs, are what ``create_model`` gets with it.

    Raises:
        ValueError: parts that only a class could name to timm (each is named).
    """
    gated = [f"{path} (SwiGLU)" for path, module in net.named_modules() if isinstance(module, layers.SwiGLU)]
    if gated:
        raise ValueError(f"timm's configuration has no word for {compact(gated)}")
    backbone, head = net.backbone, net.head
    (height, width), (rows, columns) = backbone.patch_size, backbone.grid[:2]
    args: dict[str, Any] = {
        "img_size": [rows * height, columns * width],
        "patch_size": [height, width],
        "in_chans": backbone.in_chans,
        "num_classes": net.num_classes,
        "embed_dim": backbone.embed_dim,
        "depth": len(backbone.encoder.blocks),
    }
    args |= _of_blocks(net)
    if isinstance(backbone.pos_embed, layers.NoPositions):
        args["pos_embed"] = "none"
    if isinstance(backbone.norm, nn.RMSNorm):
        args["norm_layer"] = "rmsnorm"
    if isinstance(head, layers.DistilledHead):
        return "deit_base_distilled_patch16_224", args
    args |= {"class_token": "cls" in backbone.grid.prefix, "reg_tokens": backbone.grid.prefix.count("reg")}
    return "vit_base_patch16_224", args | {"global_pool": _POOLS[type(head.pool)], "fc_norm": False}


def _of_blocks(net: ViT) -> dict[str, Any]:
    """Options of all blocks, read from the first; timm has no others, so weights of blocks that differ will not fit."""
    attention = [m for m in net.modules() if isinstance(m, layers.SelfAttention | layers.CrossAttention)]
    args: dict[str, Any] = {}
    for module in attention[:1]:
        args["num_heads"] = module.num_heads
        if isinstance(module, layers.SelfAttention):
            args["qkv_bias"] = module.qkv.bias is not None
            args["qk_norm"] = not isinstance(module.q_norm, nn.Identity)
    dim = net.backbone.embed_dim
    for module in [m for m in net.modules() if isinstance(m, layers.Mlp)][:1]:
        ratio = module.fc1.out_features / dim
        if isinstance(module.act, nn.GELU) and module.act.approximate == "tanh":
            args["act_layer"] = "gelu_tanh"
        args["mlp_ratio"] = ratio if int(dim * ratio) == module.fc1.out_features else math.nextafter(ratio, math.inf)
    if any(isinstance(module, layers.LayerScale) for module in net.modules()):
        args["init_values"] = 1.0
    return args
