"""Weights from elsewhere: timm's names to ours and back.

Where timm differs. Its positions cover the prefix tokens too; ours have none there, so on the way in each prefix token
takes up its position (their sum is all the net ever sees) and on the way out those positions are zeros. Its blocks
keep everything else under other names. What a state dict does not hold must be the same on both sides: number of
heads, epsilon of the norms (1e-6), pooling (for mean and max pooling, timm's ``fc_norm=False``).
"""

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vit.layers import Size
from vit.models.seats import parts_without_seat
from vit.models.vit import ViT

Weights = Mapping[str, Tensor]

_BLOCK = "backbone.encoder.blocks.{}."
_TIMM = {
    "backbone.patch_embed.proj": "patch_embed.proj",
    f"{_BLOCK}norm1": "blocks.{}.norm1",
    f"{_BLOCK}mixer.qkv": "blocks.{}.attn.qkv",
    f"{_BLOCK}mixer.q_norm": "blocks.{}.attn.q_norm",
    f"{_BLOCK}mixer.k_norm": "blocks.{}.attn.k_norm",
    f"{_BLOCK}mixer.proj": "blocks.{}.attn.proj",
    f"{_BLOCK}residual1.scale": "blocks.{}.ls1",
    f"{_BLOCK}norm2": "blocks.{}.norm2",
    f"{_BLOCK}mlp.fc1": "blocks.{}.mlp.fc1",
    f"{_BLOCK}mlp.fc2": "blocks.{}.mlp.fc2",
    f"{_BLOCK}residual2.scale": "blocks.{}.ls2",
    "backbone.norm": "norm",
    "head.pool": "attn_pool",
    "head.pool.attention.q": "attn_pool.q",
    "head.pool.attention.kv": "attn_pool.kv",
    "head.pool.attention.proj": "attn_pool.proj",
    "head.pool.norm": "attn_pool.norm",
    "head.pool.mlp.fc1": "attn_pool.mlp.fc1",
    "head.pool.mlp.fc2": "attn_pool.mlp.fc2",
    "head.fc": "head",
    "head.fc_dist": "head_dist",
}
_OURS = {timm: ours for ours, timm in _TIMM.items()}
_NUMBER = re.compile(r"\b\d+\b")
_TOKENS = {"cls": "cls_token", "dist": "dist_token", "reg": "reg_token"}  # in timm's order
_PREFIX, _POSITIONS = "backbone.prefix_tokens", "backbone.pos_embed.embed"


def to_timm(net: ViT) -> dict[str, Tensor]:
    """The net's weights under timm's names, as copies: for ``timm.create_model`` with the same options.

    Raises:
        ValueError: the net has parts timm's VisionTransformer lacks (each is named).
    """
    parts = parts_without_seat(net)
    if parts:
        raise ValueError(f"timm's VisionTransformer has no seat for {compact(parts)}")
    ours = net.state_dict()
    prefix, positions = ours.pop(_PREFIX), ours.pop(_POSITIONS, None)
    theirs = {_rename(name, _TIMM): value for name, value in ours.items()}
    names = net.backbone.grid.prefix
    for token, name in _TOKENS.items():
        if token in names:
            theirs[name] = prefix[:, [position for position, own in enumerate(names) if own == token]]
    if positions is not None:
        theirs["pos_embed"] = torch.cat((torch.zeros_like(prefix), positions), dim=1)
    return {name: value.clone() for name, value in theirs.items()}


def from_timm(weights: Weights, grid: Size | None = None) -> dict[str, Tensor]:
    """A timm VisionTransformer's weights under our names, its positions still at its own size; for `load_weights`.

    Args:
        weights: timm's state dict, with positions for all tokens or (timm's ``no_embed_class``) for patches only.
        grid: (rows, columns) of its patches; a square is assumed when None.

    Raises:
        ValueError: weights that no part of ours takes (each is named), or positions that fit no grid.
    """
    rest = {name: value for name, value in weights.items() if name not in (*_TOKENS.values(), "pos_embed")}
    unknown = [name for name in rest if not _rename(name, _OURS)]
    if unknown or "patch_embed.proj.weight" not in rest:
        found = compact(unknown or rest) or "nothing"
        raise ValueError(f"expected the weights of a plain timm VisionTransformer, got some with no seat here: {found}")
    ours = {_rename(name, _OURS): value for name, value in rest.items()}
    projection = rest["patch_embed.proj.weight"]
    tokens = [weights[name] for name in _TOKENS.values() if name in weights]
    prefix = torch.cat((projection.new_zeros(1, 0, len(projection)), *tokens), dim=1)
    positions = weights.get("pos_embed")
    if positions is not None:
        front = _positions_in_front(positions.shape[1], prefix.shape[1], grid)
        prefix = prefix + positions[:, :front] if front else prefix
        ours[_POSITIONS] = positions[:, front:]
    return {_PREFIX: prefix, **ours}


def compact(names: Iterable[str]) -> str:
    """Names on one line, those that differ in one number written together: ``blocks.{0,1,2}.norm1``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        number = re.search(r"(?<=\.)\d+(?=[. ])", name)
        key = name if number is None else f"{name[: number.start()]}\0{name[number.end() :]}"
        groups.setdefault(key, []).append(number.group() if number else "")
    written = (
        key.replace("\0", numbers[0] if len(numbers) == 1 else f"{{{','.join(numbers)}}}")
        for key, numbers in groups.items()
    )
    return ", ".join(written)


def _rename(name: str, table: Mapping[str, str]) -> str:
    """The name on the other side, empty when it has no seat there."""
    module, _, leaf = name.rpartition(".")
    seat = table.get(_NUMBER.sub("{}", module))
    return f"{seat.format(*_NUMBER.findall(module))}.{leaf}" if seat else ""


def _positions_in_front(count: int, num_prefix: int, grid: Size | None) -> int:
    """How many of timm's positions belong to prefix tokens: all of those or none."""
    fitting = {front for front in (num_prefix, 0) if _is_grid(count - front, grid)}
    if len(fitting) != 1:
        shape = "a square grid" if grid is None else f"grid {grid[0]}x{grid[1]}"
        raise ValueError(f"{count} positions, {num_prefix} prefix tokens: not {shape}, give grid=(rows, columns)")
    return fitting.pop()


def _is_grid(count: int, grid: Size | None) -> bool:
    return count == (math.isqrt(max(count, 0)) ** 2 if grid is None else grid[0] * grid[1])
