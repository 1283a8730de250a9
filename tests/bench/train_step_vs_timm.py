"""Our train step against timm's at the same shape, in alternation: `python tests/bench/train_step_vs_timm.py [pairs]`.

Prints the ratio of times (ours / timm's, below 1 is faster) with a 95 % interval, and adds a line to results/.
"""

import sys
from functools import partial

import timm
import torch
from paired import SEED, TINY, compare, step
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vit.analysis.cost import Work
from vit.models import plain_vit


def main(pairs: int) -> None:
    torch.manual_seed(SEED)
    variant, img_size, patch_size, num_classes, batch_size = TINY.values()
    theirs = timm.create_model(
        f"vit_{variant}_patch16_224", img_size=img_size, patch_size=patch_size, num_classes=num_classes
    )
    nets = [plain_vit(variant, img_size, 3, num_classes, patch_size), theirs]
    images, labels = torch.randn(batch_size, 3, img_size, img_size), torch.randint(num_classes, (batch_size,))

    def loss(net: nn.Module) -> Tensor:
        return cross_entropy(net(images), labels)

    def steps(bf16: bool) -> list[Work]:
        return [step(net, partial(loss, net), bf16=bf16) for net in nets]

    compare("train_step_vs_timm", steps, pairs)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
