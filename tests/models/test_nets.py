"""What holds for every net, with default and with all options."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers import redrawn
from tests.models.nets import NETS, everything, plain
from vit.models import Backbone

nets = pytest.mark.parametrize("make", NETS.values(), ids=NETS)
ROOT = Path(__file__).resolve().parents[2]
IMAGES = (2, 5, 12, 20)


@nets
def test_images_become_logits(make: Callable[[], nn.Module]) -> None:
    net = make().eval()
    logits = net(torch.randn(IMAGES))
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()
    assert net(torch.randn(2, 5, 16, 28)).shape == (2, 3)


@nets
def test_wrong_channels_are_told(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"^the model takes images of 5 channels, got 3$"):
        make()(torch.randn(2, 3, 12, 20))


@nets
def test_gradients_reach_every_parameter(make: Callable[[], nn.Module]) -> None:
    net = make()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += torch.randn_like(parameter) * 0.02  # a zero weight hides what lies before it
    net(torch.randn(7, *IMAGES[1:])).square().sum().backward()
    dead = [name for name, p in net.named_parameters() if p.numel() and (p.grad is None or not p.grad.any())]
    assert dead == []


@nets
def test_samples_do_not_mix_in_evaluation(make: Callable[[], nn.Module]) -> None:
    net, images = make().double().eval(), torch.randn(3, *IMAGES[1:]).double()
    with torch.no_grad():
        assert_close(net(images), torch.cat([net(image[None]) for image in images]), rtol=0, atol=1e-10)


@nets
def test_evaluation_is_repeatable(make: Callable[[], nn.Module]) -> None:
    net, images = make().eval(), torch.randn(IMAGES)
    assert_close(net(images), net(images), rtol=0, atol=0)


@nets
def test_state_dicts_come_back(make: Callable[[], nn.Module]) -> None:
    net, other, images = make().eval(), make().eval(), torch.randn(IMAGES)
    assert not torch.equal(net(images), other(images))
    other.load_state_dict(net.state_dict())
    assert_close(other(images), net(images), rtol=0, atol=0)


@nets
def test_bf16_autocast_is_finite_and_close(make: Callable[[], nn.Module]) -> None:
    net, images = make().eval(), torch.randn(IMAGES)
    with torch.no_grad():
        expected = net(images)
        with torch.autocast("cpu", torch.bfloat16):
            actual = net(images)
    assert actual.isfinite().all()
    assert (actual.float() - expected).norm() < 0.05 * expected.norm() + 0.01


def test_everything_trains_with_random_parts_and_evaluates_without() -> None:
    net, images = everything(), torch.randn(IMAGES)
    assert not torch.equal(net.train()(images), net.train()(images))
    assert net.train()(images).shape == (2, 3)


def test_each_sample_sees_its_own_pixels_only_and_all_of_them() -> None:
    net = redrawn(plain())
    images = torch.randn(IMAGES).double().requires_grad_()
    net(images)[0].sum().backward()
    assert images.grad[0].ne(0).all()
    assert images.grad[1].eq(0).all()


def test_the_backbone_is_built_from_the_nets_size_and_channels() -> None:
    net = plain()
    assert isinstance(net.backbone, Backbone)
    assert net.backbone.grid == (3, 5, ("cls",))
    assert (net.num_classes, net.head.fc.out_features) == (3, 3)


COMPILED = """
import torch
from tests.models.nets import NETS
torch.manual_seed(0)
net, images = NETS["{name}"]().eval(), torch.randn(2, 5, 12, 20)
with torch.no_grad():
    torch.testing.assert_close(torch.compile(net, fullgraph=True)(images), net(images), rtol=1e-4, atol=1e-5)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "everything"])
def test_compiled_as_one_graph_equals_eager(name: str) -> None:
    """In a process of its own: the suite's shape checks are not traceable."""
    code = COMPILED.format(name=name)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
