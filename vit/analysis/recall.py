"""How far back, and among how many copies, a mixer finds one token: an associative recall task made to measure.

A token is a key and a value. The last one asks for a key, and the answer is the value that stood beside that key. The
asked key stands in the sequence once; the tokens around it are of other keys, some of them copies of one token.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vit.layers import Block, MixerFactory
from vit.tokens import Grid, Layout


@dataclass(frozen=True)
class Recall:
    """The task.

    Attributes:
        tokens: in a sequence, the question included.
        keys: different keys.
        values: different values, the classes of the answer.

    Raises:
        ValueError: no room for the asked token and the question, or nothing to tell apart.
    """

    tokens: int = 32
    keys: int = 8
    values: int = 8

    def __post_init__(self) -> None:
        if self.tokens < 2 or self.keys < 2 or self.values < 2:
            raise ValueError(f"expected at least 2 tokens, keys and values, got {self.tokens, self.keys, self.values}")

    @property
    def width(self) -> int:
        """Channels of a token: its key, its value and whether it asks."""
        return self.keys + self.values + 1


class Sequences(NamedTuple):
    """A batch of the task, tokens as one-hot vectors."""

    tokens: Float[Tensor, "b n w"]
    answers: Int[Tensor, " b"]


def draw(
    task: Recall, batch_size: int, generator: torch.Generator, distance: int | None = None, copies: int | None = None
) -> Sequences:
    """Random sequences.

    Args:
        task: sizes.
        batch_size: sequences.
        generator: of the draws.
        distance: from the asked token to the question; None draws from all that fit, evenly on a logarithmic scale.
        copies: how many of the other tokens are copies of one of them, drawn from all when None.

    Raises:
        ValueError: a distance or copies that do not fit the sequence.
    """
    context, others = task.tokens - 1, task.tokens - 2
    if distance not in (None, *range(1, context + 1)) or copies not in (None, *range(others + 1)):
        raise ValueError(f"{context} tokens stand before the question, got distance {distance} and {copies} copies")
    asked, answers = (_draw(below, (batch_size,), generator) for below in (task.keys, task.values))
    other = (asked[:, None] + 1 + _draw(task.keys - 1, (batch_size, context + 1), generator)) % task.keys
    value = _draw(task.values, (batch_size, context + 1), generator)
    drawn = (torch.rand(batch_size, generator=generator) * math.log(context + 1)).exp().long().clamp(1, context)
    place = context - (drawn if distance is None else torch.full_like(drawn, distance))[:, None]
    many = _draw(others + 1, (batch_size, 1), generator) if copies is None else torch.tensor([[copies]])
    order = torch.rand(batch_size, context, generator=generator).scatter(1, place, 2.0)  # the asked one is no copy
    copied = order.argsort(dim=1).argsort(dim=1) < many
    keys, values = (torch.where(copied, part[:, -1:], part[:, :-1]) for part in (other, value))
    keys, values = keys.scatter(1, place, asked[:, None]), values.scatter(1, place, answers[:, None])
    tokens = torch.cat((F.one_hot(keys, task.keys), F.one_hot(values, task.values)), dim=-1)
    question = torch.cat((F.one_hot(asked, task.keys), torch.zeros(batch_size, task.values, dtype=torch.long)), dim=-1)
    tokens = F.pad(torch.cat((tokens, question[:, None]), dim=1), (0, 1))
    tokens[:, -1, -1] = 1
    return Sequences(tokens.float(), answers)


@final
class Reader(nn.Module):
    """One block between two linear maps, read at the last token. No positions are added: keys tell tokens apart."""

    def __init__(self, task: Recall, mixer: MixerFactory, dim: int = 32) -> None:
        super().__init__()
        self.grid = Grid(1, task.tokens)
        self.embed = nn.Linear(task.width, dim)
        self.block = Block(dim, self.grid, mixer=mixer)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, task.values)

    def forward(self, tokens: Float[Tensor, "b n w"]) -> Float[Tensor, "b k"]:
        return self.head(self.norm(self.block(self.embed(tokens), Layout(self.grid))[:, -1]))


def trained(
    task: Recall, mixer: MixerFactory, steps: int, batch_size: int = 64, lr: float = 3e-3, seed: int = 0
) -> Reader:
    """A reader after so many steps of Adam on fresh sequences of any distance and any number of copies."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = Reader(task, mixer)
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(reader.parameters(), lr=lr)
        for _ in range(steps):
            tokens, answers = draw(task, batch_size, generator)
            F.cross_entropy(reader(tokens), answers).backward()
            optimizer.step()
            optimizer.zero_grad()
    return reader.eval()


def by_distance(reader: Reader, task: Recall, distances: Sequence[int], count: int = 512) -> list[float]:
    """Accuracy on ``count`` fresh sequences whose answer stands at each distance, by chance 1 / values."""
    return [_accuracy(reader, draw(task, count, _held_out(), distance=distance)) for distance in distances]


def by_copies(reader: Reader, task: Recall, copies: Sequence[int], count: int = 512) -> list[float]:
    """Accuracy on ``count`` fresh sequences in which so many of the other tokens are copies of one."""
    return [_accuracy(reader, draw(task, count, _held_out(), copies=number)) for number in copies]


@torch.no_grad()
def _accuracy(reader: Reader, sequences: Sequences) -> float:
    return (reader(sequences.tokens).argmax(dim=1) == sequences.answers).double().mean().item()


def _held_out() -> torch.Generator:
    return torch.Generator().manual_seed(2**31)


def _draw(below: int, shape: tuple[int, ...], generator: torch.Generator) -> Int[Tensor, "*s"]:
    return torch.randint(below, shape, generator=generator)
