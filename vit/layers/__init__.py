"""Parts: images to tokens, tokens to tokens, tokens to vectors and logits."""

from vit.layers.ablation import NoMlp, NoResidualBlock
from vit.layers.additive import AdditivePool
from vit.layers.aft import AFTConv, AFTFull, AFTLocal, AFTSimple
from vit.layers.attend import CrossAttention, MixerFactory, SelfAttention
from vit.layers.block import Block, BlockFactory, ConformerBlock, PostNormBlock
from vit.layers.conv import ConvModule
from vit.layers.depthwise import DepthwiseConv1d, DepthwiseConv2d, NeighbourMean
from vit.layers.encoder import Encoder
from vit.layers.fourier import Fourier
from vit.layers.hard import Choice, GumbelPool, ReinforcePool
from vit.layers.heads import DistilledHead, Head, HeadFactory, LinearHead
from vit.layers.hierarchical import HierarchicalPool
from vit.layers.identity import Identity
from vit.layers.lowrank import LowRankLinear, merged
from vit.layers.lstm import BiLstm
from vit.layers.mlp import ActFactory, Mlp, MlpFactory, SwiGLU
from vit.layers.narrowing import Kept, NarrowingBlock, TopKBlock
from vit.layers.norm import LayerNorm, NormFactory
from vit.layers.patches import (
    ConvStem,
    PatchDropout,
    PatchEmbed,
    PatchEmbedFactory,
    Size,
    Sizes,
    adapt_channels,
    default_patch_size,
    keep_patches,
    pair,
    patch_grid,
    patch_grids,
    resize_patches,
)
from vit.layers.pooling import ClassToken, MapPool, MaxPool, MeanPool, PoolFactory
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
from vit.layers.reduction import SpatialReduction
from vit.layers.residual import DropPath, LayerScale, Residual
from vit.layers.scan import Columns, Order, OrderFactory, Raster, Reverse, Scan, Snake
from vit.layers.seqpool import SeqPool
from vit.layers.token_mlp import SpatialGating, TokenMlp
from vit.layers.weighted import WeightedPool

__all__ = [
    "AFTConv",
    "AFTFull",
    "AFTLocal",
    "AFTSimple",
    "ActFactory",
    "AdditivePool",
    "BiLstm",
    "Block",
    "BlockFactory",
    "Choice",
    "ClassToken",
    "Columns",
    "ConformerBlock",
    "ConvModule",
    "ConvStem",
    "CrossAttention",
    "DepthwiseConv1d",
    "DepthwiseConv2d",
    "DistilledHead",
    "DropPath",
    "Encoder",
    "Fourier",
    "GumbelPool",
    "Head",
    "HeadFactory",
    "HierarchicalPool",
    "Identity",
    "Kept",
    "LayerNorm",
    "LayerScale",
    "LearnedPositions",
    "LinearHead",
    "LowRankLinear",
    "MapPool",
    "MaxPool",
    "MeanPool",
    "MixerFactory",
    "Mlp",
    "MlpFactory",
    "NarrowingBlock",
    "NeighbourMean",
    "NoMlp",
    "NoPositions",
    "NoResidualBlock",
    "NormFactory",
    "Order",
    "OrderFactory",
    "PatchDropout",
    "PatchEmbed",
    "PatchEmbedFactory",
    "PoolFactory",
    "PositionFactory",
    "PostNormBlock",
    "Raster",
    "ReinforcePool",
    "Residual",
    "Reverse",
    "Rotary2d",
    "RotaryFactory",
    "Scan",
    "SelfAttention",
    "SeqPool",
    "SinCos1d",
    "SinCos2d",
    "Size",
    "Sizes",
    "Snake",
    "SpatialGating",
    "SpatialReduction",
    "SwiGLU",
    "TokenMlp",
    "TopKBlock",
    "WeightedPool",
    "adapt_channels",
    "default_patch_size",
    "keep_patches",
    "merged",
    "pair",
    "patch_grid",
    "patch_grids",
    "resize_patches",
    "resize_positions",
]
