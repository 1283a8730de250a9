"""Recording sees every mechanism, changes nothing, and says so when there is nothing to see."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

from tests.analysis.nets import small_images, small_vit, softmax_weights
from vit.analysis.maps import attention_matrix
from vit.analysis.record import record
from vit.attention import Mechanism
from vit.layers import MapPool


def test_records_each_layers_call_in_order():
    net, images = small_vit(depth=3), small_images()
    calls = record(net, images)
    assert [call.mechanism for call in calls] == [m for m in net.modules() if isinstance(m, Mechanism)]
    assert len(calls) == 3
    for call in calls:
        assert call.within
        assert call.v.shape == (2, 3, 16, 7)
        assert call.layout.grid == (3, 5, ("cls",))
        assert_close(call.mechanism(call.q, call.k, call.v, call.layout), call.out, rtol=0, atol=0)


def test_the_attention_of_a_pool_is_recorded_last_and_told_apart():
    calls = record(small_vit(pool=MapPool), small_images())
    assert [call.within for call in calls] == [True, True, True, False]


def test_fused_kernels_do_not_matter():
    net, images = small_vit().float(), small_images().float()
    fused = record(net, images)
    with sdpa_kernel(SDPBackend.MATH):
        explicit = record(net, images)
    for one, other in zip(fused, explicit, strict=True):
        assert one.q is not None and one.k is not None
        assert_close(attention_matrix(one), attention_matrix(other), rtol=0, atol=1e-6)
        assert_close(attention_matrix(one).double(), softmax_weights(one.q, one.k), rtol=0, atol=1e-6)


def test_leaves_no_trace():
    net = small_vit()
    net.train()
    net.backbone.encoder.blocks[1].eval()  # a frozen part stays frozen
    net.backbone.encoder.blocks[0].register_forward_hook(lambda *_: None)
    flags, hooks = _flags(net), _hooks(net)
    before = net.eval()(images := small_images()).detach()
    _set(net, flags)
    record(net, images)
    assert _flags(net) == flags
    assert _hooks(net) == hooks
    assert_close(net.eval()(images).detach(), before, rtol=0, atol=0)


def test_leaves_no_trace_when_the_net_raises():
    net = small_vit().train()
    hooks = _hooks(net)
    with pytest.raises(ValueError, match="3 channels, got 1"):
        record(net, small_images()[:, :1])
    assert net.training
    assert _hooks(net) == hooks


def test_records_in_eval_mode_without_gradients():
    net, images = small_vit(proj_drop=0.5).train(), small_images()
    first, second = record(net, images), record(net, images)
    assert_close(first[-1].out, second[-1].out, rtol=0, atol=0)
    assert not any(tensor.requires_grad for call in first for tensor in (call.v, call.out))
    assert torch.is_grad_enabled()


def test_one_picture_or_many_is_the_same():
    net, images = small_vit().float(), small_images(5).float()
    together = [attention_matrix(call) for call in record(net, images)]
    for position in range(5):
        alone = [attention_matrix(call) for call in record(net, images[position : position + 1])]
        for one, many in zip(alone, together, strict=True):
            assert_close(one[0], many[position], rtol=0, atol=1e-6)


def test_keeps_the_precision_of_the_net():
    net, images = small_vit().float(), small_images().float()
    assert record(net, images)[0].v.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        calls = record(net, images)
        assert calls[0].v.dtype == torch.bfloat16
        matrix = attention_matrix(calls[0])
    assert matrix.dtype == torch.float32
    assert calls[0].q is not None and calls[0].k is not None
    assert_close(matrix.double(), softmax_weights(calls[0].q, calls[0].k), rtol=0, atol=1e-6)


def test_a_net_without_attention_is_an_error_in_one_line():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with pytest.raises(ValueError, match=r"^Sequential called no attention mechanism.*such as vit\.models\.ViT$"):
        record(net, torch.randn(1, 3, 8, 8))
    assert net.training


def _flags(net: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in net.named_modules()}


def _set(net: nn.Module, flags: dict[str, bool]) -> None:
    for name, module in net.named_modules():
        module.training = flags[name]


def _hooks(net: nn.Module) -> dict[str, int]:
    return {name: len(module._forward_hooks) for name, module in net.named_modules()}
