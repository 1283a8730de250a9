import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from tests.attention.test_softmax import explicit
from tests.helpers import B, D, E, H, N, random, row
from vit.attention import Routing
from vit.tokens import Grid, Layout, Mask

LONG = 23


def test_one_cluster_is_softmax() -> None:
    q, k, v = random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    keys = torch.tensor([[True] * N, [True, False, True, True, False, True, False]])
    out = Routing(H, D, Grid(1, N), clusters=1).double()(q, k, v, Layout(Grid(1, N), Mask(keys=keys)))
    wanted = explicit(q, k, v, Mask(keys=keys)) * keys[:, None, :, None]
    assert_close(out, wanted)


def test_a_query_sees_the_keys_that_its_centroid_keeps() -> None:
    mechanism = Routing(H, D, Grid(1, LONG), clusters=4).double()
    q, k, v = random(B, H, LONG, D), random(B, H, LONG, D), random(B, H, LONG, E)
    near_q, near_k = (F.normalize(x, dim=-1) @ mechanism.centroids.transpose(1, 2) for x in (q, k))
    allowed = torch.zeros(B, H, LONG, LONG, dtype=torch.bool)
    for b in range(B):
        for h in range(H):
            for i in range(LONG):
                allowed[b, h, i, near_k[b, h, :, near_q[b, h, i].argmax()].topk(6).indices] = True
    flat = (x.flatten(0, 1)[:, None] for x in (q, k, v))
    wanted = explicit(*flat, Mask(pairs=allowed.flatten(0, 1)))
    assert_close(mechanism(q, k, v, row(LONG)), wanted.view_as(v))


@pytest.mark.parametrize("clusters", [2, 5, 30])
def test_every_query_that_is_no_padding_gets_an_output(clusters: int) -> None:
    q, k = random(B, H, LONG, D), random(B, H, LONG, D)
    q[0] = q[0, :, :1]  # all to one cluster
    keys = torch.rand(B, LONG) < 0.6
    keys[1] = torch.arange(LONG) == 4
    eye = torch.eye(LONG).double().expand(B, H, LONG, LONG)
    weights = Routing(H, D, Grid(1, LONG), clusters).double()(q, k, eye, Layout(Grid(1, LONG), Mask(keys=keys)))
    assert_close(weights.sum(dim=-1), keys[:, None].double().expand(B, H, LONG))


def test_prefix_tokens_see_all_and_are_seen_by_all() -> None:
    grid = Grid(1, LONG, ("cls", "reg"))
    n = grid.tokens
    eye = torch.eye(n).double().expand(B, H, n, n)
    weights = Routing(H, D, grid).double()(random(B, H, n, D), random(B, H, n, D), eye, Layout(grid))
    assert weights[:, :, :2].min() > 0
    assert weights[..., :2].min() > 0
    assert (weights == 0).float().mean() > 0.5


def test_centroids_move_towards_queries_and_keys_in_training_only() -> None:
    mechanism = Routing(H, D, Grid(1, LONG), clusters=3, decay=0.9).double()
    before = mechanism.centroids.clone()
    q, k, v = random(B, H, LONG, D), random(B, H, LONG, D), random(B, H, LONG, E)
    mechanism.eval()(q, k, v, row(LONG))
    assert mechanism.centroids.equal(before)

    def distortion() -> float:
        points = F.normalize(torch.cat((q, k), dim=2), dim=-1)
        return (1 - (points @ mechanism.centroids.transpose(1, 2)).amax(dim=-1)).mean().item()

    far = distortion()
    for _ in range(50):
        mechanism.train()(q, k, v, row(LONG))
    assert distortion() < 0.9 * far
    assert_close(mechanism.centroids.norm(dim=-1), torch.ones(H, 3).double())


@pytest.mark.parametrize("decay", [0.9, 0.0])
def test_a_centroid_becomes_the_mean_of_its_queries_and_then_of_its_keys(decay: float) -> None:
    """One that nothing is near stays, though it keeps nothing of itself. What moves them still goes by the old ones."""
    grid = Grid(1, LONG, ("cls", "reg"))
    mechanism = Routing(H, D, grid, clusters=3, decay=decay).double()
    q, k, v = (random(B, H, grid.tokens, width) for width in (D, D, E))
    mechanism.centroids[0, 2] = -F.normalize(mechanism.centroids[0, :2].sum(dim=0), dim=0)
    q[:, 0], k[:, 0] = (5 * mechanism.centroids[0, 0] + 0.1 * part[:, 0] for part in (q, k))
    wanted = mechanism.centroids.clone()
    for points in (q[:, :, 2:], k[:, :, 2:]):
        points = F.normalize(points, dim=-1)
        nearest = (points @ wanted.mT).argmax(dim=-1)
        for h in range(H):
            for c in range(3):
                if (members := points[:, h][nearest[:, h] == c]).numel():
                    moved = decay * wanted[h, c] + (1 - decay) * members.mean(dim=0)
                    wanted[h, c] = moved / moved.norm()
    assert_close(wanted[0, 2], mechanism.centroids[0, 2])
    still = mechanism.eval()(q, k, v, Layout(grid))
    assert_close(mechanism.train()(q, k, v, Layout(grid)), still, rtol=0, atol=0)
    assert_close(mechanism.centroids, wanted)


def test_queries_of_another_sequence_have_no_prefix() -> None:
    """Each goes by its own cluster, the first as the last."""
    grid = Grid(1, LONG, ("cls", "reg"))
    mechanism = Routing(H, D, grid).double()
    q, k, v = random(B, H, 5, D), random(B, H, grid.tokens, D), random(B, H, grid.tokens, E)
    out = mechanism(q, k, v, Layout(grid))
    assert_close(mechanism(q.flip(2), k, v, Layout(grid)).flip(2), out)


def test_padding_does_not_move_centroids() -> None:
    keys = torch.arange(LONG).expand(B, LONG) < 9
    layout = Layout(Grid(1, LONG), Mask(keys=keys))
    moved = []
    q, k, v = random(B, H, LONG, D), random(B, H, LONG, D), random(B, H, LONG, E)
    for noise in (0.0, 1e3):
        torch.manual_seed(0)
        mechanism = Routing(H, D, Grid(1, LONG), decay=0.5).double().train()
        q[:, :, 9:], k[:, :, 9:] = q[:, :, 9:] + noise, k[:, :, 9:] - noise
        mechanism(q, k, v, layout)
        moved.append(mechanism.centroids)
    assert_close(*moved, rtol=0, atol=0)


def test_refuses_a_causal_mask_and_says_why() -> None:
    parts = random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    with pytest.raises(ValueError, match="later tokens may displace: it cannot honour a causal mask"):
        Routing(H, D, Grid(1, N)).double()(*parts, Layout(Grid(1, N), Mask(causal=True)))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"clusters": 0}, "clusters must be at least 1, got 0"), ({"decay": 1.1}, r"decay must lie in \[0, 1\], got 1.1")],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Routing(H, D, Grid(1, N), **options)
