import pytest
import torch
from torch.testing import assert_close

from tests.attention.test_softmax import explicit
from tests.helpers import B, D, E, H, N, random, row
from vit.attention import Sinkhorn
from vit.attention.sinkhorn import sinkhorn
from vit.tokens import Grid, Layout, Mask

LONG = 24


def test_rows_sum_to_one_exactly_and_columns_as_iterations_go_on() -> None:
    errors = []
    for iterations in (1, 8, 30):
        mixture = sinkhorn(random(50, 8, 8), iterations)
        assert mixture.min() > 0
        assert_close(mixture.sum(dim=-1), torch.ones(50, 8).double())
        errors.append((mixture.sum(dim=-2) - 1).abs().max().item())
    assert errors[2] < 1e-6 < errors[1] < 1e-2 < errors[0]


@pytest.mark.parametrize("options", [{}, {"temperature": 0.4, "iterations": 3}], ids=["", "options"])
@pytest.mark.parametrize("training", [False, True])
def test_equals_the_formula(training: bool, options: dict[str, float]) -> None:
    """In training with Gumbel noise on the logits, before they are divided by the temperature."""
    mechanism = Sinkhorn(H, D, Grid(1, LONG), block_size=6, **options).double().train(training)
    q, k, v = random(B, H, LONG, D), random(B, H, LONG, D), random(B, H, LONG, E)
    blocks = [x.view(B, H, 4, 6, -1) for x in (q, k, v)]
    torch.manual_seed(3)
    noise = -torch.empty(B, H, 4, 4, dtype=torch.float64).exponential_().log() if training else 0
    torch.manual_seed(3)
    logits = (blocks[1].mean(dim=3) @ mechanism.sort + noise) / options.get("temperature", 0.75)
    mix = sinkhorn(logits, int(options.get("iterations", 20)))
    wanted = torch.empty_like(v)
    for t in range(4):
        k2, v2 = (torch.cat(((mix[:, :, t, :, None, None] * x).sum(dim=2), x[:, :, t]), dim=2) for x in blocks[1:])
        wanted[:, :, 6 * t : 6 * t + 6] = explicit(blocks[0][:, :, t], k2, v2, None)
    assert_close(mechanism(q, k, v, row(LONG)), wanted)


@pytest.mark.parametrize("length", [3, 10])
def test_a_padded_sample_equals_the_formula_over_the_blocks_it_fills(length: int) -> None:
    """Ten tokens in blocks of 3, 3, 3 and 1; three in blocks of one each, the fourth without."""
    mechanism = Sinkhorn(H, D, Grid(1, LONG), block_size=6).double().eval()
    q, k, v = random(1, H, LONG, D), random(1, H, LONG, D), random(1, H, LONG, E)
    starts = range(0, length, size := -(-length // 4))
    parts = [[x[:, :, start : min(start + size, length)] for start in starts] for x in (q, k, v)]
    means = torch.stack([block.mean(dim=2) for block in parts[1]], dim=2)
    mix = sinkhorn(means @ mechanism.sort[..., : len(starts)] / 0.75, 20)
    wanted = torch.zeros_like(v)
    for t, start in enumerate(starts):
        shares, places = [], []
        for place in range(size):
            there = [u for u, block in enumerate(parts[1]) if place < block.shape[2]]
            weights = mix[:, :, t, there]
            share = weights.sum(dim=-1, keepdim=True)
            stacked = (torch.stack([part[u][:, :, place] for u in there], dim=2) for part in parts[1:])
            places.append([(weights[..., None] * x).sum(dim=2) / share for x in stacked])
            shares.append(share.expand(-1, -1, 1))
        k2, v2 = (
            torch.cat((torch.stack([place[i] for place in places], dim=2), parts[i + 1][t]), dim=2) for i in range(2)
        )
        own = torch.ones(1, H, parts[1][t].shape[2]).double()
        weights = torch.cat((*shares, own), dim=-1)[:, :, None] * (parts[0][t] @ k2.mT * D**-0.5).exp()
        wanted[:, :, start : start + parts[0][t].shape[2]] = weights / weights.sum(dim=-1, keepdim=True) @ v2
    layout = Layout(Grid(1, LONG), Mask(keys=torch.arange(LONG)[None] < length))
    assert_close(mechanism(q, k, v, layout), wanted)


def test_blocks_left_where_they_are_make_local_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    mechanism = Sinkhorn(H, D, Grid(1, LONG), block_size=6).double().eval()
    monkeypatch.setattr(mechanism, "mixture", lambda k, filled: torch.eye(4).double().expand(B, H, 4, 4))
    q, k, v = random(B, H, LONG, D), random(B, H, LONG, D), random(B, H, LONG, E)
    block = torch.arange(LONG) // 6
    assert_close(mechanism(q, k, v, row(LONG)), explicit(q, k, v, Mask(pairs=(block[:, None] == block)[None])))


def test_gradient_reaches_values_keys_and_order_of_other_blocks() -> None:
    mechanism = Sinkhorn(H, D, Grid(1, LONG), block_size=6).double().eval()
    q, k, v = (x.requires_grad_() for x in (random(B, H, LONG, D), random(B, H, LONG, D), random(B, H, LONG, E)))
    mechanism(q, k, v, row(LONG))[:, :, :6].sum().backward()
    assert v.grad[:, :, 6:].abs().min() > 0
    assert k.grad[:, :, 6:].abs().min() > 0
    assert mechanism.sort.grad.abs().max() > 0


def test_prefix_tokens_see_all_and_are_seen_by_all() -> None:
    grid = Grid(1, LONG, ("cls", "reg"))
    n = grid.tokens
    eye = torch.eye(n).double().expand(B, H, n, n)
    mechanism = Sinkhorn(H, D, grid, block_size=6).double().eval()
    q, k = random(B, H, n, D), random(B, H, n, D)
    weights = mechanism(q, k, eye, Layout(grid))
    assert_close(weights[:, :, :2], explicit(q, k, eye, None)[:, :, :2])
    assert weights[..., :2].min() > 0


@pytest.mark.parametrize("length", [1, 3, 10, 23])
def test_a_sample_with_few_tokens_fills_blocks_evenly_and_takes_nothing_from_empty_ones(length: int) -> None:
    mechanism = Sinkhorn(H, D, Grid(1, LONG), block_size=6).double().eval()
    eye = torch.eye(LONG).double().expand(B, H, LONG, LONG)
    keys = torch.arange(LONG).expand(B, LONG) < length
    q, k = (x.requires_grad_() for x in (random(B, H, LONG, D), random(B, H, LONG, D)))
    weights = mechanism(q, k, eye, Layout(Grid(1, LONG), Mask(keys=keys)))
    assert_close(weights.sum(dim=-1), keys[:, None].double().expand(B, H, LONG))
    assert weights[..., length:].count_nonzero() == 0
    weights.pow(2).sum().backward()
    assert q.grad.isfinite().all() and k.grad.isfinite().all()


def test_noise_is_drawn_in_training_only_from_torchs_generator() -> None:
    mechanism = Sinkhorn(H, D, Grid(1, LONG), block_size=6).double().eval()
    parts = random(B, H, LONG, D), random(B, H, LONG, D), random(B, H, LONG, E)
    still = mechanism.eval()(*parts, row(LONG))
    assert_close(mechanism(*parts, row(LONG)), still, rtol=0, atol=0)
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(mechanism.train()(*parts, row(LONG)))
    assert outs[0].equal(outs[1])
    assert not torch.allclose(outs[0], outs[2])
    assert not torch.allclose(outs[0], still)


def test_refuses_the_order_of_another_number_of_blocks() -> None:
    with pytest.raises(ValueError, match=r"^Sinkhorn was built for 24 tokens, where sort is .* it cannot be resized$"):
        Sinkhorn(H, D, Grid(1, LONG)).load_state_dict(Sinkhorn(H, D, Grid(1, N)).state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 0}, "block_size must be at least 1, got 0"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Sinkhorn(H, D, Grid(1, N), **options)
