import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from tests.attention.test_softmax import explicit
from tests.helpers import B, D, E, H, N, random, row
from vit.attention import LSH
from vit.tokens import Grid, Layout, Mask

LONG = 23


def shared(q: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v with k = q / |q|, over pairs; a token sees itself only where it sees nothing else."""
    itself = torch.eye(q.shape[2], dtype=torch.bool)
    others = allowed & ~itself
    lonely = ~others.any(dim=-1, keepdim=True)
    mask = Mask(pairs=(others | (lonely & allowed & itself)).flatten(0, 1))
    flat = (part.flatten(0, 1)[:, None] for part in (q, F.normalize(q, dim=-1), v))
    return explicit(*flat, mask).view(*v.shape)


def test_two_buckets_and_one_round_are_full_attention_within_a_half_space() -> None:
    mechanism = LSH(H, D, Grid(1, LONG), buckets=2, chunk=LONG, rounds=1).double()
    q, v = random(B, H, LONG, D), random(B, H, LONG, E)
    assert_close(
        mechanism(q, None, v, row(LONG)), shared(q, v, mechanism.bucket(q)[:, :, 0, :, None] == mechanism.bucket(q))
    )
    one_side = q * (q @ mechanism.directions[0]).sign()
    everyone = torch.ones(B, H, LONG, LONG, dtype=torch.bool)
    assert_close(mechanism(one_side, None, v, row(LONG)), shared(one_side, v, everyone))


def test_a_bucket_is_cut_into_chunks_that_see_the_one_before() -> None:
    mechanism = LSH(1, D, Grid(1, LONG), buckets=2, chunk=2, rounds=1).double()
    q, v = random(1, 1, LONG, D), random(1, 1, LONG, E)
    bucket = mechanism.bucket(q)[0, 0, 0]
    chunk = torch.zeros(LONG, dtype=torch.long)
    for number in range(2):
        chunk[bucket == number] = torch.arange(int((bucket == number).sum())) // 2
    back = chunk[:, None] - chunk
    near = (bucket[:, None] == bucket) & ((back == 0) | (back == 1))
    assert_close(mechanism(q, None, v, row(LONG)), shared(q, v, near.expand(1, 1, -1, -1)))


def test_rounds_are_joined_by_their_logsumexp() -> None:
    mechanism = LSH(1, D, Grid(1, LONG), buckets=4, chunk=LONG, rounds=3).double()
    q, v = random(1, 1, LONG, D), random(1, 1, LONG, E)
    bucket = mechanism.bucket(q)[0, 0]
    times = (bucket[:, :, None] == bucket[:, None]).sum(dim=0).double()
    scores = q @ F.normalize(q, dim=-1).transpose(-1, -2) * D**-0.5 - 5e4 * torch.eye(LONG)
    weights = times * (scores - scores.amax(dim=-1, keepdim=True)).exp()
    assert_close(mechanism(q, None, v, row(LONG)), weights / weights.sum(dim=-1, keepdim=True) @ v)


def test_more_rounds_come_closer_to_full_attention() -> None:
    q, v = random(8, H, LONG, D), random(8, H, LONG, E)
    full = shared(q, v, torch.ones(8, H, LONG, LONG, dtype=torch.bool))
    errors = [
        (LSH(H, D, Grid(1, LONG), buckets=4, chunk=LONG, rounds=rounds).double()(q, None, v, row(LONG)) - full).norm()
        for rounds in (1, 4, 16)
    ]
    assert errors[2] < 0.85 * errors[1] < 0.7 * errors[0], errors


def test_prefix_tokens_see_all_and_are_seen_by_all() -> None:
    grid = Grid(1, LONG, ("cls", "reg"))
    n = grid.tokens
    mechanism = LSH(H, D, grid, buckets=4, chunk=2).double()
    weights = mechanism(random(B, H, n, D), None, torch.eye(n).double().expand(B, H, n, n), Layout(grid))
    off = ~torch.eye(n, dtype=torch.bool)
    assert weights[:, :, :2][:, :, off[:2]].min() > 0
    assert weights[..., :2][:, :, off[:, :2]].min() > 0
    assert (weights == 0).float().mean() > 0.5


@pytest.mark.parametrize("prefix", [None, torch.tensor([0, 9])], ids=["", "prefix"])
def test_no_later_token_decides_anything_under_a_causal_mask(prefix: Tensor | None) -> None:
    """Chunks cut across buckets would shift when a later token joins an earlier bucket."""
    grid = Grid(1, LONG, ("cls",))
    mechanism, layout = LSH(H, D, grid, buckets=4, chunk=2).double(), Layout(grid, Mask(causal=True, prefix=prefix))
    q, v = random(B, H, LONG + 1, D), random(B, H, LONG + 1, E)
    out = mechanism(q, None, v, layout)
    q[:, :, 13:], v[:, :, 13:] = random(B, H, LONG - 12, D), random(B, H, LONG - 12, E)
    assert_close(mechanism(q, None, v, layout)[:, :, :13], out[:, :, :13], rtol=0, atol=1e-12)
    assert not torch.allclose(mechanism(q, None, v, layout)[:, :, 13:], out[:, :, 13:])


def test_hashes_are_seeded_and_travel_with_the_state() -> None:
    one, same, other = (LSH(H, D, Grid(1, N), seed=seed) for seed in (3, 3, 4))
    assert one.directions.equal(same.directions)
    assert not one.directions.equal(other.directions)
    before = torch.get_rng_state()
    LSH(H, D, Grid(1, N))
    assert torch.get_rng_state().equal(before)
    other.load_state_dict(one.state_dict())
    assert other.directions.equal(one.directions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buckets": 3}, "buckets must be even and at least 2, got 3"),
        ({"buckets": 0}, "buckets must be even and at least 2, got 0"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        LSH(H, D, Grid(1, N), **options)
