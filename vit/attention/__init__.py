"""Attention mechanisms: q, k, v -> out. They know nothing of images, blocks or training."""

from vit.attention.additive import Additive
from vit.attention.bigbird import BigBird
from vit.attention.block_gather import BlockGather
from vit.attention.dense import Dense
from vit.attention.edge_bias import EdgeBias
from vit.attention.edges import Edges
from vit.attention.engine import Engine, EngineFactory
from vit.attention.flex import Flex
from vit.attention.general import General
from vit.attention.global_tokens import GlobalTokens
from vit.attention.grid_graph import GridGraph
from vit.attention.local import Local
from vit.attention.longformer import Longformer
from vit.attention.mechanism import Mechanism, MechanismFactory, Projections
from vit.attention.nearest import NearestNeighbors
from vit.attention.neighborhood import Neighborhood
from vit.attention.pattern import Pattern, PatternFactory
from vit.attention.per_head import PerHead
from vit.attention.relative_bias import RelativeBias
from vit.attention.relu import Relu, ReluSum
from vit.attention.softmax import Softmax
from vit.attention.sparse import Sparse
from vit.attention.strided import Strided
from vit.attention.window import ShiftedWindow, Window

__all__ = [
    "Additive",
    "BigBird",
    "BlockGather",
    "Dense",
    "EdgeBias",
    "Edges",
    "Engine",
    "EngineFactory",
    "Flex",
    "General",
    "GlobalTokens",
    "GridGraph",
    "Local",
    "Longformer",
    "Mechanism",
    "MechanismFactory",
    "NearestNeighbors",
    "Neighborhood",
    "Pattern",
    "PatternFactory",
    "PerHead",
    "Projections",
    "RelativeBias",
    "Relu",
    "ReluSum",
    "ShiftedWindow",
    "Softmax",
    "Sparse",
    "Strided",
    "Window",
]
