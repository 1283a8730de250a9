"""Attention mechanisms: q, k, v -> out. They know nothing of images, blocks or training."""

from vit.attention.additive import Additive
from vit.attention.bigbird import BigBird
from vit.attention.block_gather import BlockGather
from vit.attention.dense import Dense
from vit.attention.edge_bias import EdgeBias
from vit.attention.edges import Edges
from vit.attention.efficient import Efficient, EfficientScaling
from vit.attention.engine import Engine, EngineFactory
from vit.attention.flex import Flex
from vit.attention.gated_positional import GatedPositional
from vit.attention.general import General
from vit.attention.global_tokens import GlobalTokens
from vit.attention.grid_graph import GridGraph
from vit.attention.linear import Linear, LinearState
from vit.attention.linformer import Linformer
from vit.attention.local import Local
from vit.attention.longformer import Longformer
from vit.attention.lsh import LSH
from vit.attention.mechanism import Mechanism, MechanismFactory, Projections
from vit.attention.nearest import NearestNeighbors
from vit.attention.nearest_bias import NearestBias
from vit.attention.neighborhood import Neighborhood
from vit.attention.nystrom import Nystrom
from vit.attention.pattern import Pattern, PatternFactory
from vit.attention.per_head import PerHead
from vit.attention.performer import Performer
from vit.attention.relative_bias import RelativeBias
from vit.attention.relu import Relu, ReluSum
from vit.attention.rfa import RFA
from vit.attention.routing import Routing
from vit.attention.sinkhorn import Sinkhorn
from vit.attention.softmax import Softmax
from vit.attention.sparse import Sparse
from vit.attention.strided import Strided
from vit.attention.superpixels import Superpixels
from vit.attention.synthesizer import (
    DenseSynthesizer,
    FactorizedDenseSynthesizer,
    FactorizedRandomSynthesizer,
    RandomSynthesizer,
)
from vit.attention.window import ShiftedWindow, Window

__all__ = [
    "LSH",
    "RFA",
    "Additive",
    "BigBird",
    "BlockGather",
    "Dense",
    "DenseSynthesizer",
    "EdgeBias",
    "Edges",
    "Efficient",
    "EfficientScaling",
    "Engine",
    "EngineFactory",
    "FactorizedDenseSynthesizer",
    "FactorizedRandomSynthesizer",
    "Flex",
    "GatedPositional",
    "General",
    "GlobalTokens",
    "GridGraph",
    "Linear",
    "LinearState",
    "Linformer",
    "Local",
    "Longformer",
    "Mechanism",
    "MechanismFactory",
    "NearestBias",
    "NearestNeighbors",
    "Neighborhood",
    "Nystrom",
    "Pattern",
    "PatternFactory",
    "PerHead",
    "Performer",
    "Projections",
    "RandomSynthesizer",
    "RelativeBias",
    "Relu",
    "ReluSum",
    "Routing",
    "ShiftedWindow",
    "Sinkhorn",
    "Softmax",
    "Sparse",
    "Strided",
    "Superpixels",
    "Window",
]
