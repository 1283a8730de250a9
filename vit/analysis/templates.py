"""What attention that sums keys and values first has to choose from."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from vit.analysis.record import Recorded


class Templates(NamedTuple):
    """phi(Q) (phi(K)^T V) in its parts, d of them whatever the number of tokens.

    Attributes:
        gathered: phi(K)^T, what each template takes from each token.
        vectors: phi(K)^T V, the templates.
        choice: phi(Q), how much of each template a token gets.
    """

    gathered: Float[Tensor, "b h d n"]
    vectors: Float[Tensor, "b h d e"]
    choice: Float[Tensor, "b h n d"]


def templates(call: Recorded) -> Templates:
    """The templates of `vit.attention.Efficient` on a recorded call: softmax over tokens of k, over channels of q.

    Raises:
        ValueError: the call has no queries or keys.
    """
    if call.q is None or call.k is None:
        raise ValueError(f"expected a call with queries and keys, {type(call.mechanism).__name__} takes none")
    gathered = call.k.mT.softmax(dim=-1)
    return Templates(gathered, gathered @ call.v, call.q.softmax(dim=-1))


def most_chosen(found: Templates, count: int, sample: int = 0, head: int = 0) -> Float[Tensor, "count n"]:
    """What the ``count`` templates that are chosen most take from each token, the most chosen first."""
    order = found.choice[sample, head].mean(dim=0).argsort(descending=True, stable=True)
    return found.gathered[sample, head, order[:count]]
