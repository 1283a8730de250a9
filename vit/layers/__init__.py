"""Parts: images to tokens, tokens to tokens, tokens to vectors and logits."""

from vit.layers.additive import AdditivePool
from vit.layers.attend import CrossAttention, MixerFactory, SelfAttention
from vit.layers.block import Block, BlockFactory, ConformerBlock, PostNormBlock
from vit.layers.conv import ConvModule
from vit.layers.encoder import Encoder
from vit.layers.hard import Choice, GumbelPool, ReinforcePool
from vit.layers.heads import DistilledHead, Head, HeadFactory, LinearHead
from vit.layers.hierarchical import HierarchicalPool
from vit.layers.mixers import Identity
from vit.layers.mlp import Mlp, MlpFactory, SwiGLU
from vit.layers.norm import LayerNorm, NormFactory
from vit.layers.patches import (
    ConvStem,
    PatchDropout,
    PatchEmbed,
    PatchEmbedFactory,
    Size,
    Sizes,
    default_patch_size,
    pair,
    patch_grid,
    patch_grids,
)
from vit.layers.pooling import ClassToken, MapPool, MaxPool, MeanPool, PoolFactory, SeqPool
from vit.layers.positions import (
    LearnedPositions,
    NoPositions,
    PositionFactory,
    Rotary2d,
    RotaryFactory,
    SinCos1d,
    SinCos2d,
    resize_positions,
)
from vit.layers.residual import DropPath, LayerScale, Residual
from vit.layers.weighted import WeightedPool

__all__ = [
    "AdditivePool",
    "Block",
    "BlockFactory",
    "Choice",
    "ClassToken",
    "ConformerBlock",
    "ConvModule",
    "ConvStem",
    "CrossAttention",
    "DistilledHead",
    "DropPath",
    "Encoder",
    "GumbelPool",
    "Head",
    "HeadFactory",
    "HierarchicalPool",
    "Identity",
    "LayerNorm",
    "LayerScale",
    "LearnedPositions",
    "LinearHead",
    "MapPool",
    "MaxPool",
    "MeanPool",
    "MixerFactory",
    "Mlp",
    "MlpFactory",
    "NoPositions",
    "NormFactory",
    "PatchDropout",
    "PatchEmbed",
    "PatchEmbedFactory",
    "PoolFactory",
    "PositionFactory",
    "PostNormBlock",
    "ReinforcePool",
    "Residual",
    "Rotary2d",
    "RotaryFactory",
    "SelfAttention",
    "SeqPool",
    "SinCos1d",
    "SinCos2d",
    "Size",
    "Sizes",
    "SwiGLU",
    "WeightedPool",
    "default_patch_size",
    "pair",
    "patch_grid",
    "patch_grids",
    "resize_positions",
]
