"""Where a block's time goes: attention's core, its projections, the MLP, the rest; and what each mixer's core costs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vit.analysis import cost
from vit.analysis.cost import Work
from vit.attention import Sparse
from vit.commandline.arguments import BACKBONE, NET
from vit.commandline.options import VitCLI
from vit.experiments.recipe import net_of, parse
from vit.layers import SelfAttention

UNFUSED = "softmax, unfused"


class Part(NamedTuple):
    """One part of a net at N tokens: multiply-adds and seconds of forward and backward, for one image."""

    name: str
    tokens: int
    depth: int
    macs: int
    seconds: float


class Heads(NamedTuple):
    """Softmax attention's core at one width, cut into so many heads."""

    heads: int
    tokens: int
    macs: int
    seconds: float


class Core(NamedTuple):
    """One overlay's mechanism, or its whole mixer where it has none, at N tokens; for one image."""

    overlay: str
    tokens: int
    macs: int
    seconds: float
    saved_bytes: float


@dataclass(frozen=True)
class Bench:
    """Measures parts of one host.

    Attributes:
        host: overlays of ``vit fit`` that make it.
        batch_size: images at once.
        repeats: of each measurement, the least of which counts; a first one is thrown away.
        device: cpu or cuda.
    """

    host: tuple[str, ...]
    batch_size: int
    repeats: int
    device: str

    def cli(self, overlay: str, *options: str) -> VitCLI:
        """The host with an overlay and options of ``vit fit``, parsed once for all sizes."""
        return parse([*self.host, overlay], {}, (), ["--data.dataset=digits", *options])

    def is_sparse(self, cli: VitCLI) -> bool:
        """Whether the overlay's mechanism is a pattern, which several engines compute."""
        mixer = _block(net_of(cli, {})).mixer
        return isinstance(mixer, SelfAttention) and isinstance(mixer.mechanism, Sparse)

    def split(self, cli: VitCLI, tokens: int, depth: int) -> Iterator[Part]:
        """The parts of a net of ``depth`` blocks; the rest is what they leave of the whole: norms, sums, patches, head.

        Raises:
            ValueError: the host's blocks have no softmax attention.
        """
        net, images = self._net(cli, tokens, depth)
        block = _block(net)
        mixer, mlp = block.mixer, block.mlp
        if not isinstance(mixer, SelfAttention):
            raise ValueError(f"expected a host with SelfAttention, got {type(mixer).__name__}")
        x = torch.randn(self.batch_size, tokens, net.backbone.embed_dim, device=self.device)

        def projections(x: Tensor) -> tuple[Tensor, Tensor]:
            return mixer.qkv(x), mixer.proj(x)

        core, values = core_of(net, images)
        works = {
            "attention core": (core, values),
            "projections": (projections, [x]),
            "MLP": (mlp, [x]),
        }
        whole_macs, whole = self._cost(net, [images])
        for name, (work, inputs) in works.items():
            macs, seconds = self._cost(work, inputs)
            yield Part(name, tokens, depth, depth * macs, depth * seconds)
            whole_macs, whole = whole_macs - depth * macs, whole - depth * seconds
        yield Part("rest", tokens, depth, whole_macs, whole)

    def heads(self, cli: VitCLI, tokens: int, counts: Sequence[int]) -> Iterator[Heads]:
        """The core at the host's width; counts that do not divide it are left out."""
        width = self._net(cli, tokens, 1)[0].backbone.embed_dim
        for count in counts:
            if width % count == 0:
                option = {f"{BACKBONE}.block.init_args.mixer.init_args.num_heads": count}
                net, images = self._net(cli, tokens, 1, option)
                yield Heads(count, tokens, *self._cost(*core_of(net, images)))

    def core(self, overlay: str, cli: VitCLI, tokens: int) -> Core:
        """Time, multiply-adds and memory of what the overlay puts into a block.

        Raises:
            ValueError: it cannot be built or run at so many tokens.
        """
        net, images = self._net(cli, tokens, 1)
        work, inputs = core_of(net, images)
        macs, seconds = self._cost(work, inputs)
        return Core(overlay, tokens, macs, seconds, self._saved(work, inputs, net))

    def unfused(self, cli: VitCLI, tokens: int) -> Core:
        """Softmax attention as the matrices it is written with: the one that keeps N x N numbers."""
        with sdpa_kernel(SDPBackend.MATH):
            return self.core(UNFUSED, cli, tokens)

    def _net(self, cli: VitCLI, tokens: int, depth: int, options: dict[str, Any] | None = None) -> tuple[Any, Tensor]:
        size = _sides(tokens)
        shape = {f"{NET}.img_size": size, f"{BACKBONE}.patch_size": 1, f"{BACKBONE}.depth": depth}
        net: Any = net_of(cli, shape | (options or {})).to(self.device)
        return net, torch.randn(self.batch_size, net.backbone.in_chans, *size, device=self.device)

    def _cost(self, work: Callable[..., Any], inputs: Sequence[Any]) -> tuple[int, float]:
        """Multiply-adds of the forward pass and least seconds of both passes, for one image."""
        net = work if isinstance(work, nn.Module) else None
        macs = cost.macs_of(lambda: work(*inputs), net) // self.batch_size
        step = _both_passes(work, inputs)
        times = [cost.seconds(step, self.device) for _ in range(self.repeats + 1)]
        return macs, min(times[1:]) / self.batch_size

    def _saved(self, work: Callable[..., Any], inputs: Sequence[Any], net: nn.Module) -> float:
        inputs = _fresh(inputs)
        return cost.saved_bytes(lambda: work(*inputs), net) / self.batch_size


def core_of(net: Any, images: Tensor) -> tuple[nn.Module, list[Any]]:
    """What mixes tokens in the first block, without projections where they are apart, and what it is called with."""
    mixer = _block(net).mixer
    core = mixer.mechanism if isinstance(mixer, SelfAttention) else mixer
    seen: list[Any] = []
    handle = core.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    try:
        with torch.no_grad():
            net.train()(images)
    finally:
        handle.remove()
    return core, seen


def _block(net: Any) -> Any:
    return net.backbone.encoder.blocks[0]


def _fresh(inputs: Sequence[Any]) -> list[Any]:
    """Inputs as leaves that want a gradient, where they can have one."""
    floating = [isinstance(value, Tensor) and value.is_floating_point() for value in inputs]
    return [v.detach().clone().requires_grad_() if ok else v for v, ok in zip(inputs, floating, strict=True)]


def _both_passes(work: Callable[..., Any], inputs: Sequence[Any]) -> Work:
    """Forward, then backward to the inputs and to the parameters."""
    inputs = _fresh(inputs)
    leaves = [value for value in inputs if isinstance(value, Tensor) and value.requires_grad]
    if isinstance(work, nn.Module):
        leaves += [parameter for parameter in work.parameters() if parameter.requires_grad]

    def step() -> None:
        out = work(*inputs)
        outs = [out] if isinstance(out, Tensor) else list(out)
        torch.autograd.grad(outs, leaves, [torch.ones_like(one) for one in outs], allow_unused=True)

    return step


def _sides(tokens: int) -> tuple[int, int]:
    """The grid nearest to a square."""
    height = next(side for side in range(isqrt(tokens), 0, -1) if tokens % side == 0)
    return height, tokens // height
