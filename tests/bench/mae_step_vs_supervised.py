"""A step of MAE against a supervised step of the same encoder: `python tests/bench/mae_step_vs_supervised.py [pairs]`.

75 % of 64 patches hidden, default decoder. In alternation; prints the ratio of times (MAE / supervised) with a 95 %
interval, and adds a line to results/.
"""

import sys
from functools import partial

import torch
from paired import SEED, TINY, compare, step
from torch import Tensor
from torch.nn.functional import cross_entropy

from vit.analysis.cost import Work
from vit.layers import Block, SelfAttention
from vit.models import MAE, VARIANTS, Backbone, ViT


def main(pairs: int) -> None:
    torch.manual_seed(SEED)
    variant, img_size, patch_size, num_classes, batch_size = TINY.values()
    embed_dim, depth, num_heads, _ = VARIANTS[variant]
    block = partial(Block, mixer=partial(SelfAttention, num_heads=num_heads))
    backbone = partial(Backbone, patch_size=patch_size, embed_dim=embed_dim, depth=depth, block=block)
    mae, supervised = MAE(img_size, 3, backbone), ViT(img_size, 3, num_classes, backbone)
    images, labels = torch.randn(batch_size, 3, img_size, img_size), torch.randint(num_classes, (batch_size,))

    def reconstruction() -> Tensor:
        return mae(images, torch.rand(batch_size, mae.num_patches(images))).loss.mean()

    def classification() -> Tensor:
        return cross_entropy(supervised(images), labels)

    def steps(bf16: bool) -> list[Work]:
        return [step(mae, reconstruction, bf16=bf16), step(supervised, classification, bf16=bf16)]

    compare("mae_step_vs_supervised", steps, pairs)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
