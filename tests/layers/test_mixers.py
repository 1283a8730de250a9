from tests.helpers import B, N, random, row
from vit.layers import Identity
from vit.tokens import Grid


def test_identity() -> None:
    x, mixer = random(B, N, 13), Identity(13, Grid(1, N))
    assert mixer(x, row()) is x
    assert list(mixer.parameters()) == []
