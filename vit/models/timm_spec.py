"""The spec of a net of ours that computes what a net of timm does: `timm_args` the other way round."""

import math
from functools import partial
from typing import Any

import torch
from torch import nn

from vit import layers
from vit.models.backbone import Backbone
from vit.models.cnn import stem_of, timm_config
from vit.spec import plain

TANH = "GELU by tanh"
_POOLS = {"token": layers.ClassToken, "avg": layers.MeanPool, "max": layers.MaxPool}


def timm_spec(name: str) -> dict[str, Any]:
    """The spec of the ViT or CNN that takes the weights of ``timm:NAME``, at timm's image size and class count.

    Raises:
        ValueError: timm has no such net, or it is neither a plain ViT nor a convolutional net.
    """
    import timm

    config = timm_config(name)
    with torch.device("meta"):
        donor: Any = timm.create_model(name, pretrained=False)
    args: dict[str, Any] = {"img_size": list(config.input_size[1:]), "in_chans": 3, "num_classes": 1000}
    if not isinstance(donor, timm.models.vision_transformer.VisionTransformer):
        stem_of(name)  # refuses what is no convolutional net
        return {"class": "vit.models.cnn.CNN", "args": {**args, "name": name.partition(".")[0]}}
    backbone = partial(
        Backbone,
        patch_size=tuple(donor.patch_embed.patch_size),
        embed_dim=donor.embed_dim,
        depth=len(donor.blocks),
        prefix=_prefix(donor),
        pos_embed=layers.NoPositions if donor.pos_embed is None else layers.LearnedPositions,
        block=_block(donor.blocks[0]),
        norm=_norm(donor.norm),
    )
    args |= {"backbone": plain(backbone, "backbone"), "head": plain(_head(donor), "head")}
    return {"class": "vit.models.vit.ViT", "args": args}


def _prefix(donor: Any) -> list[str]:
    tokens = ["cls"] * donor.has_class_token + ["reg"] * donor.num_reg_tokens
    return ["cls", "dist"] if "dist_token" in dict(donor.named_parameters()) else tokens


def _block(block: Any) -> partial[nn.Module]:
    mixer = partial(
        layers.SelfAttention,
        num_heads=block.attn.num_heads,
        qkv_bias=block.attn.qkv.bias is not None,
        qk_norm=None if isinstance(block.attn.q_norm, nn.Identity) else layers.LayerNorm,
    )
    gated = block.mlp.fc1.out_features == 2 * block.mlp.fc2.in_features
    mlp = partial(layers.SwiGLU, mlp_ratio=_ratio(block.mlp)) if gated else partial(layers.Mlp, **_mlp(block.mlp))
    scaled = None if isinstance(block.ls1, nn.Identity) else 1e-5
    return partial(layers.Block, mixer=mixer, mlp=mlp, norm=_norm(block.norm1), layer_scale=scaled)


def _norm(norm: nn.Module) -> type[nn.Module]:
    return nn.RMSNorm if isinstance(norm, nn.RMSNorm) else layers.LayerNorm


def _head(donor: Any) -> Any:
    if "dist_token" in dict(donor.named_parameters()):
        return layers.DistilledHead
    if donor.global_pool == "map":
        pool = partial(layers.MapPool, num_heads=donor.attn_pool.num_heads, **_mlp(donor.attn_pool.mlp))
    else:
        pool = _POOLS[donor.global_pool]
    return partial(layers.Head, pool=pool)


def activation(act: nn.Module) -> str:
    """Of ours or of timm's, whose approximate GELU is a class of its own."""
    tanh = type(act).__name__ == "GELUTanh" or (isinstance(act, nn.GELU) and act.approximate == "tanh")
    return TANH if tanh else type(act).__name__


def _mlp(mlp: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"mlp_ratio": _ratio(mlp)}
    return options | ({"act_layer": partial(nn.GELU, approximate="tanh")} if activation(mlp.act) == TANH else {})


def _ratio(mlp: Any) -> float:
    """One that gives the hidden width exactly, whole numbers rounded down."""
    hidden, dim = mlp.fc2.in_features, mlp.fc2.out_features
    return hidden / dim if int(dim * (hidden / dim)) == hidden else math.nextafter(hidden / dim, math.inf)
