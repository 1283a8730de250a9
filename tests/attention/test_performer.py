import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.attention.test_softmax import explicit
from tests.helpers import B, D, E, H, N, random, row
from vit.attention import Performer
from vit.attention.performer import orthogonal_features
from vit.tokens import Grid, Layout, Mask


def error(features: int, seeds: int = 8, n: int = 41, dim: int = 16) -> float:
    """Relative to softmax attention, over seeds of data and features; small scores, where the estimate can work."""
    errors = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        q, k, v = 0.5 * random(1, 1, n, dim), 0.5 * random(1, 1, n, dim), random(1, 1, n, E)
        exact = explicit(q, k, v, None)
        rough = Performer(1, dim, Grid(1, n), features=features).double()(q, k, v, row(n))
        errors.append(((rough - exact).norm() / exact.norm()).item())
    return sum(errors) / seeds


def test_error_falls_with_the_number_of_features() -> None:
    errors = [error(m) for m in (16, 128, 1024)]
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.6 * errors[1]
    assert errors[2] < 0.1


def kernel(features: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """phi(q) . phi(k) for each draw of features (s m d)."""
    phi = [(features @ x - x.square().sum() / 2).exp() for x in (q, k)]
    return (phi[0] * phi[1]).mean(dim=1)


def test_kernel_mean_is_unbiased_and_orthogonal_features_vary_less() -> None:
    dim, draws = 4, 40_000
    q, k = torch.tensor([[0.5, 0.1, -0.3, 0.4], [0.3, 0.2, -0.4, 0.1]]).double()
    orthogonal = orthogonal_features(draws * dim, dim).double().view(draws, dim, dim)
    assert orthogonal.mean(dim=0).abs().max() < 5 / math.sqrt(draws)  # not so with the signs that QR leaves
    ours, plain = kernel(orthogonal, q, k), kernel(random(draws, dim, dim), q, k)
    for estimate in (ours, plain):
        off = (estimate.mean() - (q @ k).exp()) / (estimate.std() / math.sqrt(draws))
        assert off.abs() < 4  # standard errors
    assert ours.var() < plain.var()


def test_features_are_orthogonal_in_groups_and_as_long_as_gaussians() -> None:
    features = orthogonal_features(2 * D + 2, D).double()
    for group in features.split(D):
        gram = group @ group.T
        assert_close(gram, gram.diagonal().diag(), rtol=0, atol=1e-5)
    lengths = torch.stack([orthogonal_features(D, D).norm(dim=1) for _ in range(500)])
    assert lengths.square().mean().item() == pytest.approx(D, rel=0.1)
    assert lengths.square().var().item() == pytest.approx(2 * D, rel=0.3)  # chi square


def test_padding_does_not_take_part_in_the_largest_exponent() -> None:
    mechanism, keys = Performer(1, D, Grid(1, N)), torch.arange(N)[None] < 4
    q, k, v = torch.randn(1, 1, N, D), torch.randn(1, 1, N, D), torch.randn(1, 1, N, E)
    k[:, :, :4] += 20  # far below the padding's exponent, which would leave nothing of them
    alone = mechanism(q, k[:, :, :4], v[:, :, :4], row(4))
    assert alone.abs().min() > 0
    assert_close(mechanism(q, k, v, Layout(Grid(1, N), Mask(keys=keys))), alone)


@pytest.mark.parametrize("front", [None, 0, 3, 80])
def test_causal_rows_equal_the_formula_whatever_keys_come_later(front: int | None) -> None:
    """In float32, of keys whose features are exp(-200) beside those of others; over several chunks of the sums."""
    torch.manual_seed(0)
    n, dim = 150, 16
    mechanism = Performer(1, dim, Grid(1, n))
    q, k, v = (torch.randn(1, 1, n, width) for width in (dim, dim, E))
    k[:, :, :70] *= 40 / k[:, :, :70].norm(dim=-1, keepdim=True)
    k[:, :, 90:100] *= 60 / k[:, :, 90:100].norm(dim=-1, keepdim=True)
    k, v = k.requires_grad_(), v.requires_grad_()
    mask = Mask(causal=True, prefix=None if front is None else torch.tensor([front]))
    out = mechanism(q, k, v, Layout(Grid(1, n), mask))
    a, b = (x.double() @ mechanism.projection.double().mT * dim**-0.25 for x in (q, k))
    a, b = (y - x.double().square().sum(dim=-1, keepdim=True) * dim**-0.5 / 2 for y, x in ((a, q), (b, k)))
    scores = (a[..., :, None, :] + b[..., None, :, :]).logsumexp(dim=-1)
    weights = scores.masked_fill(~mask.allowed(n, q.device)[:, None], -math.inf).softmax(dim=-1)
    assert_close(out, (weights @ v.double()).float(), rtol=1e-3, atol=1e-3)
    ours, exact = (torch.autograd.grad(y.square().sum(), (k, v)) for y in (out, weights @ v.double()))
    assert_close(ours, exact, rtol=1e-2, atol=1e-2)
    if front is None:
        assert_close(out[:, :, :70], mechanism(q[:, :, :70], k[:, :, :70], v[:, :, :70], Layout(Grid(1, 70), mask)))


def test_features_are_in_the_state_dict_and_drawn_anew_in_training_only() -> None:
    mechanism = Performer(H, D, Grid(1, N), features=11, redraw=3)
    parts = torch.randn(B, H, N, D), torch.randn(B, H, N, D), torch.randn(B, H, N, E)
    first = mechanism.state_dict()["projection"].clone()
    for _ in range(6):
        mechanism.eval()(*parts, row())
    assert_close(mechanism.projection, first, rtol=0, atol=0)
    seen = [mechanism.train()(*parts, row()) is not None and mechanism.projection for _ in range(6)]
    changed = [not later.equal(earlier) for earlier, later in zip([first, *seen], seen, strict=False)]
    assert changed == [False, False, True, False, False, True]
    other = Performer(H, D, Grid(1, N), features=11, redraw=3)
    other.load_state_dict(mechanism.state_dict())
    assert_close(other.eval()(*parts, row()), mechanism.eval()(*parts, row()), rtol=0, atol=0)
    assert other.calls == 6


def test_a_pending_backward_pass_survives_a_redraw() -> None:
    mechanism = Performer(H, D, Grid(1, N), redraw=1).train()
    q = torch.randn(B, H, N, D, requires_grad=True)
    first = mechanism(q, q, q, row())
    (first + mechanism(q, q, q, row())).sum().backward()
    assert q.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"features": 0}, "features must be at least 1, got 0"), ({"redraw": -1}, "redraw must be at least 0, got -1")],
)
def test_bad_options_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Performer(H, D, Grid(1, N), **options)
