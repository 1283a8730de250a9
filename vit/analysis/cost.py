"""What a net costs: parameters, multiply-adds, time and memory, measured so that they compare."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from vit.analysis.statistics import Interval
from vit.models.choice import answer

Work = Callable[[], Any]
DRAWS = 10_000


def parameters(net: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def macs(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds of one picture's forward pass: half of torch's count of matrix products and convolutions."""
    device = next((parameter.device for parameter in net.parameters()), None)
    picture = torch.zeros(1, *shape, device=device)
    return macs_of(lambda: net.eval()(picture), net)


def macs_of(work: Work, net: nn.Module | None = None) -> int:
    """Multiply-adds of anything that multiplies matrices or convolves. Fourier transforms and LSTMs are not counted.

    Args:
        work: what is counted.
        net: whose parameters it uses, if any. They want no gradient meanwhile: torch's counter trips over their views.
    """
    learning = [] if net is None else [p for p in net.parameters() if p.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            work()
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
    return counter.get_total_flops() // 2


def scores_macs(n: int, d: int, e: int) -> int:
    """(d + e) n^2: one head's (Q K^T) V, of width d for queries and keys and e for values."""
    return (d + e) * n * n


def reordered_macs(n: int, d: int, e: int) -> int:
    """2 d e n: the same three matrices as Q (K^T V), what linear and efficient attention multiply."""
    return 2 * d * e * n


def inference(
    net: nn.Module, shape: tuple[int, ...], batch_size: int, device: str = "cpu", precision: str = "32-true"
) -> Work:
    """The forward pass of a batch of random pictures, as a prediction makes it."""
    images = torch.randn(batch_size, *shape, device=device)

    def run() -> None:
        with _autocast(device, precision), torch.inference_mode():
            net.eval()(images)

    return run


def training(
    net: nn.Module, shape: tuple[int, ...], batch_size: int, device: str = "cpu", precision: str = "32-true"
) -> Work:
    """A whole training step on random pictures: forward, loss and a hard readout's term of it, backward, AdamW."""
    optimizer = torch.optim.AdamW(net.parameters())
    images = torch.randn(batch_size, *shape, device=device)
    labels = torch.zeros(batch_size, dtype=torch.long, device=device)

    def run() -> None:
        net.train()
        with _autocast(device, precision):
            logits, choice = answer(net, images)
            losses = cross_entropy(logits.float(), labels, reduction="none")
            loss = losses.mean() if choice is None else losses.mean() + choice.term(losses)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def alternately(
    works: Sequence[Work], rounds: int, warm_up: int, device: str = "cpu"
) -> Float[np.ndarray, "{rounds} works"]:
    """Seconds of each work in each round. Who goes first takes turns, so that drift in the machine's load cancels."""
    times = np.empty((warm_up + rounds, len(works)))
    for number in range(len(times)):
        for place in np.roll(range(len(works)), -number):
            times[number, place] = seconds(works[place], device)
    return times[warm_up:]


def seconds(work: Work, device: str = "cpu") -> float:
    """Of one call, to its end on the device."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: str) -> None:
    """Wait for what a CUDA device still has to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def times_as_fast(mine: Float[np.ndarray, " rounds"], others: Float[np.ndarray, " rounds"]) -> Interval:
    """Median of others' / mine seconds, round by round, with the bootstrap's 95 % interval of that median."""
    logs = np.log(others / mine)
    draws = np.median(np.random.default_rng(0).choice(logs, (DRAWS, len(logs))), axis=1)
    value, low, high = np.exp([np.median(logs), *np.quantile(draws, (0.025, 0.975))]).tolist()
    return Interval(value, low, high)


def saved_bytes(forward: Work, net: nn.Module | None = None) -> int:
    """Bytes that autograd keeps from a forward pass for the backward one, each storage once, ``net``'s parameters not.

    What a CPU's resident memory cannot tell: allocators and libraries blur it. Of an autograd function written by hand
    only what it saves as tensors counts.
    """
    own = set() if net is None else {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            kept[place] = tensor  # held, so that no other storage takes its place while we count
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del result
    return total


def peak_bytes(work: Work) -> int:
    """Most memory allocated on the CUDA device while ``work`` ran, everything that lay there before included."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Exponent b of cost = a size^b, by least squares on logarithms: 1 grows with the size, 2 with its square.

    Raises:
        ValueError: fewer than two different sizes, or something not positive.
    """
    if len(set(sizes)) < 2 or min(*sizes, *costs) <= 0:
        raise ValueError(f"expected costs of at least two sizes, all positive, got {list(sizes)} and {list(costs)}")
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Within: torch computes on so many threads of the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _autocast(device: str, precision: str) -> torch.autocast:
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16-mixed")
