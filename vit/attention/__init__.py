"""Attention mechanisms: q, k, v -> out. They know nothing of images, blocks or training."""

from vit.attention.mechanism import Mechanism, MechanismFactory, Projections
from vit.attention.softmax import Softmax

__all__ = ["Mechanism", "MechanismFactory", "Projections", "Softmax"]
