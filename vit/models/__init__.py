"""Nets with a public surface: built from ``(img_size, in_chans, num_classes, ...)``, called images -> logits."""

from vit.models.backbone import Backbone, BackboneFactory
from vit.models.variants import VARIANTS, Variant, plain_vit
from vit.models.vit import ViT

__all__ = ["VARIANTS", "Backbone", "BackboneFactory", "Variant", "ViT", "plain_vit"]
