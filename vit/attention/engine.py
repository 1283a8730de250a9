"""The seam between a pattern and the arithmetic that follows it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.attention.pattern import Pattern
from vit.tokens import Grid, Layout

Tables = dict[str, Tensor | None]


class Engine(nn.Module, ABC):
    """softmax(q k^T / sqrt(d)) v over the pairs of a pattern. Engines differ in cost, not in what comes out.

    Built as ``Engine(pattern, grid)``. What an engine derives from the pattern, its tables, is made once for a grid:
    for the constructor's at construction, for another one (and each device) at its first call.
    """

    def __init__(self, pattern: Pattern, grid: Grid) -> None:
        super().__init__()
        self.pattern, self.grid = pattern, grid
        self.names: list[str] = []
        self.others: dict[tuple[Grid, torch.device], Tables] = {}
        for name, table in self.plan(grid).items():
            self.names.append(name)
            self.register_buffer(name, table, persistent=False)
        self.register_load_state_dict_post_hook(_plan_anew)

    @abstractmethod
    def plan(self, grid: Grid) -> Tables:
        """The tables for a grid, on the CPU."""

    @abstractmethod
    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h n d"],
        v: Float[Tensor, "b h n e"],
        layout: Layout,
        dropout: float,
    ) -> Float[Tensor, "b h n e"]:
        """Mixed values; a query that may see no key returns zeros."""

    def tables(self, grid: Grid, device: torch.device) -> Tables:
        """Those for this grid, on this device."""
        if grid == self.grid:
            return {name: self._buffers[name] for name in self.names}
        if (grid, device) not in self.others:
            self.others[grid, device] = _on(device, self.plan(grid))
        return self.others[grid, device]


EngineFactory = Callable[[Pattern, Grid], Engine]


def _on(device: torch.device, tables: Tables) -> Tables:
    return {name: None if table is None else table.to(device) for name, table in tables.items()}


def _plan_anew(engine: nn.Module, _: Any) -> None:
    """A loaded pattern may have other buffers than the one the tables were made from."""
    assert isinstance(engine, Engine)
    engine.others.clear()
    for name, table in engine.plan(engine.grid).items():
        before = engine.get_buffer(name) if engine._buffers[name] is not None else None
        engine.register_buffer(name, table if before is None or table is None else table.to(before.device), False)
