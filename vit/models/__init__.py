"""Nets with a public surface: built from ``(img_size, in_chans, num_classes, ...)``, called images -> logits."""

from vit.models.aim import AIM
from vit.models.backbone import Backbone, BackboneFactory
from vit.models.cnn import CNN
from vit.models.loading import Loaded, load_weights
from vit.models.mae import MAE
from vit.models.patchify import patchify, unpatchify
from vit.models.pretrained import load_init
from vit.models.pretraining import Pretraining, Reconstruction
from vit.models.simmim import SimMIM
from vit.models.token_labels import TokenLabels
from vit.models.variants import VARIANTS, Variant, plain_vit
from vit.models.vit import ViT
from vit.models.weights import from_timm, to_timm

__all__ = [
    "AIM",
    "CNN",
    "MAE",
    "VARIANTS",
    "Backbone",
    "BackboneFactory",
    "Loaded",
    "Pretraining",
    "Reconstruction",
    "SimMIM",
    "TokenLabels",
    "Variant",
    "ViT",
    "from_timm",
    "load_init",
    "load_weights",
    "patchify",
    "plain_vit",
    "to_timm",
    "unpatchify",
]
