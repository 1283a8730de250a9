"""Nets with every option at once, for tests that hold for any."""

from functools import partial

from torch import nn

from vit.attention import Local, Longformer, PerHead, ShiftedWindow, Softmax, Sparse, Strided
from vit.layers import (
    BiLstm,
    Block,
    ConformerBlock,
    ConvModule,
    ConvStem,
    DistilledHead,
    Head,
    LayerNorm,
    MapPool,
    MaxPool,
    MeanPool,
    NoPositions,
    PostNormBlock,
    Rotary2d,
    Scan,
    SelfAttention,
    SeqPool,
    SinCos1d,
    SinCos2d,
    Snake,
    SwiGLU,
)
from vit.models import AIM, CNN, MAE, Backbone, Pretraining, SimMIM, ViT

MIXER = partial(
    SelfAttention,
    num_heads=2,
    head_dim=8,
    value_dim=5,
    qkv_bias=False,
    qk_norm=LayerNorm,
    rotary=partial(Rotary2d, temperature=50.0),
    proj_drop=0.1,
    mechanism=partial(Softmax, attn_drop=0.1, scale=0.3),
)
HEADS = partial(PerHead, patterns=[partial(Local, width=2), partial(Strided, stride=3), ShiftedWindow])
PARTS = {"mixer": MIXER, "mlp": partial(SwiGLU, mlp_ratio=2.0, drop=0.1), "norm": nn.RMSNorm, "layer_scale": 0.5}


def everything() -> ViT:
    """12x20 pictures of 5 channels, 3 classes, each option away from its default."""
    backbone = partial(
        Backbone,
        patch_size=(4, 2),
        embed_dim=24,
        depth=3,
        prefix=("cls", "reg", "reg"),
        patch_embed=ConvStem,
        patch_drop=0.3,
        block=partial(Block, **PARTS),
        early=[(partial(PostNormBlock, **PARTS), 1)],
        drop_path=0.2,
        norm=partial(nn.RMSNorm, eps=1e-5),
    )
    return ViT((12, 20), 5, 3, backbone, partial(Head, pool=partial(MapPool, num_heads=2), drop=0.1))


def plain(head: type[nn.Module] | partial = Head, **options: object) -> ViT:
    return ViT((12, 20), 5, 3, partial(Backbone, patch_size=4, embed_dim=24, depth=2, **options), head)


NETS = {
    "plain": plain,
    "everything": everything,
    "distilled": partial(plain, DistilledHead, prefix=("cls", "dist")),
    "mean": partial(plain, partial(Head, pool=MeanPool), prefix=(), pos_embed=SinCos2d),
    "max": partial(plain, partial(Head, pool=MaxPool), prefix=(), pos_embed=SinCos1d),
    "seq": partial(plain, partial(Head, pool=SeqPool), pos_embed=NoPositions),
    "conformer": partial(
        plain, partial(Head, pool=MeanPool), block=partial(ConformerBlock, mixer=MIXER), patch_embed=ConvStem
    ),
    "sparse": partial(
        plain,
        block=partial(Block, mixer=partial(SelfAttention, mechanism=partial(Sparse, pattern=HEADS))),
        early=[(partial(Block, mixer=partial(SelfAttention, mechanism=Longformer)), 1)],
        prefix=("cls", "reg"),
    ),
    "early convolution": partial(plain, early=[(partial(Block, mixer=partial(ConvModule, kernel_size=(3, 5))), 1)]),
    "scanned": partial(
        plain, partial(Head, pool=MeanPool), block=partial(Block, mixer=partial(Scan, mixer=BiLstm, order=Snake))
    ),
    "shared layers": partial(plain, early=[(PostNormBlock, 1)], drop_path=0.2, share_layers=True),
    "resnet": partial(CNN, (12, 20), 5, 3, "resnet10t", drop=0.1, drop_path=0.1),
    "convnext": partial(CNN, (12, 20), 5, 3, "convnext_atto"),
    "narrow": partial(CNN, (12, 20), 5, 3, "resnet10t", width=0.25),
    "big image": partial(CNN, 96, 5, 3, "resnet10t"),
}


def pretraining(net: type[Pretraining] | partial, **options: object) -> Pretraining:
    """12x20 pictures of 5 channels in 15 patches, each option of the backbone as given."""
    return net((12, 20), 5, partial(Backbone, **{"patch_size": 4, "embed_dim": 24, "depth": 3, **options}))


PRETRAINING = {
    "mae": partial(pretraining, MAE),
    "mae registers": partial(pretraining, partial(MAE, norm_target=False), prefix=("cls", "reg"), pos_embed=SinCos2d),
    "mae wide": partial(
        pretraining,
        partial(MAE, mask_ratio=0.5, decoder_embed_dim=12, decoder_depth=2, decoder_num_heads=3),
        prefix=(),
        block=partial(Block, mixer=partial(SelfAttention, num_heads=2, rotary=Rotary2d)),
    ),
    "simmim": partial(pretraining, SimMIM),
    "simmim conformer": partial(
        pretraining, SimMIM, patch_embed=ConvStem, block=partial(ConformerBlock, mixer=MIXER), prefix=()
    ),
    "aim": partial(pretraining, AIM, prefix=()),
    "aim causal": partial(pretraining, partial(AIM, prefix=0.0, head_depth=2, norm_target=False), prefix=("cls",)),
    "aim short": partial(pretraining, partial(AIM, prefix=0.4), prefix=("cls", "reg")),
}
