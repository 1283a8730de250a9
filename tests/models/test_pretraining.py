"""What holds for every pretraining net."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from tests.helpers import redrawn
from tests.models.nets import PRETRAINING, pretraining
from vit.layers import Head, MeanPool
from vit.models import AIM, MAE, Backbone, Pretraining, SimMIM, ViT, patchify
from vit.models.pretraining import evaluating, mean_where, refuse_pretrained
from vit.spec import build, spec

ROOT = Path(__file__).resolve().parents[2]
nets = pytest.mark.parametrize("make", PRETRAINING.values(), ids=PRETRAINING)
Make = Callable[[], Pretraining]


def batch(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 5, 12, 20), torch.rand(count, 15)


@nets
def test_losses_are_of_each_image_and_finite(make: Make) -> None:
    found = make()(*batch())
    assert found.loss.shape == (3,) and found.loss.isfinite().all()
    assert found.prediction.shape == (3, 15, 80) and found.wanted.shape == (3, 15)
    assert found.wanted.any(dim=1).all() and not found.wanted.all(dim=1).any()


@nets
def test_what_is_hidden_is_the_noises_choice_alone(make: Make) -> None:
    net, (images, noise) = make().eval(), batch()
    before = torch.get_rng_state()
    first, again, other = net(images, noise), net(images, noise), net(images, noise.flip(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.loss, again.loss)
    whole = net.prefix == 0 if isinstance(net, AIM) else False
    assert torch.equal(first.wanted, other.wanted) == whole


@nets
def test_the_loss_ignores_patches_that_are_not_wanted(make: Make) -> None:
    """Neither what is predicted of them nor what they are moves it, but through the encoder."""
    net, (images, noise) = redrawn(make()), batch()
    images = images.double()
    found = net(images, noise)
    target = net.target(images)
    error = (found.prediction - target).abs() if isinstance(net, SimMIM) else (found.prediction - target).square()
    by_hand = [error[row, found.wanted[row]].mean() for row in range(3)]
    assert_close(found.loss, torch.stack(by_hand), rtol=1e-9, atol=0)
    (gradient,) = torch.autograd.grad(found.loss.sum(), found.prediction)
    assert gradient[~found.wanted].eq(0).all() and gradient[found.wanted].ne(0).any()


@nets
def test_gradients_reach_every_parameter(make: Make) -> None:
    net = redrawn(make()).train()
    images, noise = batch(7)
    net(images.double(), noise).loss.sum().backward()
    assert [name for name, p in net.named_parameters() if p.numel() and (p.grad is None or not p.grad.any())] == []


@nets
def test_pictures_are_hidden_and_filled_where_wanted_only(make: Make) -> None:
    net, (images, noise) = make().eval(), batch()
    found = net(images, noise)
    hidden, filled = (patchify(part, (4, 4)) for part in net.pictures(images, found))
    true = patchify(images, (4, 4))
    assert hidden[found.wanted].isnan().all()
    for part in (hidden, filled):
        assert torch.equal(part[~found.wanted], true[~found.wanted])
    expected = net.target.pixels(found.prediction, images)[found.wanted]
    assert_close(filled[found.wanted], expected)
    perfect = found._replace(prediction=net.target(images))
    assert_close(net.pictures(images, perfect)[1], images, rtol=1e-4, atol=1e-5)


@nets
def test_a_spec_and_weights_make_the_same_net(make: Make) -> None:
    net, (images, noise) = make().eval(), batch()
    other = build(spec(net)).eval()
    other.load_state_dict(net.state_dict())
    assert_close(tuple(other(images, noise)), tuple(net(images, noise)), rtol=0, atol=0)


@nets
def test_the_backbone_is_a_classifiers_by_the_same_names(make: Make) -> None:
    net = make()
    assert isinstance(net.backbone, Backbone)
    tree = spec(ViT((12, 20), 5, 2, head=partial(Head, pool=MeanPool)))
    tree["args"]["backbone"] = spec(net)["args"]["backbone"]
    classifier = build(tree)
    own = {name: tensor.shape for name, tensor in net.state_dict().items() if name.startswith("backbone.")}
    theirs = {name: tensor.shape for name, tensor in classifier.state_dict().items() if name.startswith("backbone.")}
    assert own == theirs


@nets
def test_features_are_the_mean_patch_token_of_the_whole_image(make: Make) -> None:
    net, (images, _) = make().eval(), batch()
    tokens, layout = net.backbone(images)
    assert_close(net.features(images), tokens[:, layout.grid.num_prefix :].mean(dim=1))


@nets
def test_bf16_autocast_is_finite_and_close(make: Make) -> None:
    net, (images, noise) = make().eval(), batch()
    expected = net(images, noise)
    with torch.autocast("cpu", torch.bfloat16):
        actual = net(images, noise)
    assert actual.loss.dtype == torch.float32 and torch.equal(actual.wanted, expected.wanted)
    assert_close(actual.loss, expected.loss, rtol=0.05, atol=0.01)


@nets
def test_building_leaves_training_mode_and_other_sizes_work(make: Make) -> None:
    net = make()
    assert all(module.training for module in net.modules())
    images = torch.randn(2, 5, 16, 28)
    assert net.num_patches(images) == 28
    assert net(images, torch.rand(2, 28)).loss.isfinite().all()


@pytest.mark.parametrize("name", ["mae", "simmim", "aim"])
def test_one_patch_predicts_nothing(name: str) -> None:
    with pytest.raises(ValueError, match="predicts patches from others: expected an image of at least 2, got 1"):
        PRETRAINING[name](patch_size=(12, 20))


@pytest.mark.parametrize("name", ["mae", "simmim", "aim"])
def test_patches_are_not_dropped_beside(name: str) -> None:
    with pytest.raises(ValueError, match=r"decides which patches are seen: expected patch_drop 0, got 0\.25"):
        PRETRAINING[name](patch_drop=0.25)


def test_a_mean_over_nothing_is_zero() -> None:
    wanted = torch.tensor([[True, False, True], [False, False, False]])
    assert mean_where(torch.tensor([[1.0, 5.0, 2.0], [3.0, 3.0, 3.0]]), wanted).tolist() == [1.5, 0.0]


def test_evaluating_puts_every_module_back_as_it_was() -> None:
    net = pretraining(MAE)
    net.backbone.norm.eval()
    with evaluating(net):
        assert not any(module.training for module in net.modules())
    assert [name for name, module in net.named_modules() if not module.training] == ["backbone.norm"]


def test_only_pretrained_nets_know_no_classes() -> None:
    refuse_pretrained(ViT(8, 1, 2), "runs/vit")
    with pytest.raises(
        ValueError, match=r"^runs/a holds a pretrained SimMIM, .*`vit fit -c finetune --model.init_from ru"
    ):
        refuse_pretrained(pretraining(SimMIM), "runs/a")


COMPILED = """
import torch
from tests.models.nets import PRETRAINING
torch.manual_seed(0)
net, images, noise = PRETRAINING["{name}"]().eval(), torch.randn(2, 5, 12, 20), torch.rand(2, 15)
with torch.no_grad():
    compiled = torch.compile(net, fullgraph=True)(images, noise)
    torch.testing.assert_close(tuple(compiled), tuple(net(images, noise)), rtol=1e-4, atol=1e-5)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", PRETRAINING)
def test_compiled_as_one_graph_equals_eager(name: str) -> None:
    """In a process of its own: the suite's shape checks are not traceable."""
    code = COMPILED.format(name=name)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
