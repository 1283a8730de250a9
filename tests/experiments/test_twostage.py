"""The probe of a transfer study: of which net, fitted to what and judged on what."""

from functools import partial
from pathlib import Path

from tests.helpers import redrawn
from vit import bundle
from vit.analysis.features import PATCHES, gathered
from vit.analysis.fewshot import probed as every_probe
from vit.data.module import Images
from vit.experiments.twostage import probed
from vit.layers import Block, SelfAttention
from vit.models import Backbone, ViT

FIT = ["-c", "model/vit_nano", "--model.net.backbone.embed_dim=12", "--model.net.backbone.depth=1"]
FIT += ["--model.net.backbone.patch_size=4", "--data.train_size=70", "--seed_everything=3"]


def test_a_probe_is_of_the_net_begun_with_from_the_pictures_trained_on_to_those_of_the_test(tmp_path: Path) -> None:
    block = partial(Block, mixer=partial(SelfAttention, num_heads=3))
    net = redrawn(ViT(8, 1, 10, partial(Backbone, patch_size=4, embed_dim=12, depth=1, block=block))).float()
    data = Images("digits", train_size=70, seed=3)
    bundle.save(tmp_path, net, classes=list(data.classes), preprocessing=data.preprocessing)
    found = probed(FIT, tmp_path)

    data.setup("fit")
    data.setup("test")
    gallery, labels = gathered(net, data.excerpt("train", 70))
    queries, truth = gathered(net, data.test_dataloader())
    assert (len(labels), len(truth)) == (70, 359)
    rows = every_probe((gallery[PATCHES], labels), (queries[PATCHES], truth), shots=(), draws=2, seed=0)
    assert found == {row.method: row.interval.value for row in rows} and len(found) == 3

    fresh = probed(FIT, None)
    assert fresh.keys() == found.keys() and all(fresh[method] != found[method] for method in found)
