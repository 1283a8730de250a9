"""A pool gets some calls at a time, and what comes back is in order."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vit.data import ahead, prints, source
from vit.data.images import Preprocessing
from vit.data.source import Some, Source, fitted, readable

GREY = Preprocessing((5, 7), 1, (0.5,), (0.5,))


def test_results_are_in_order_and_no_call_is_handed_out_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "AHEAD", 3)
    called: list[int] = []

    def call(item: int) -> int:
        called.append(item)
        return 2 * item

    with ThreadPoolExecutor(1) as pool:
        results = ahead.ahead(pool, call, range(8))
        assert [next(results) for _ in range(3)] == [0, 2, 4] and called == [0, 1, 2]
        assert [*results] == [6, 8, 10, 12, 14]
        assert [*ahead.ahead(pool, call, [])] == []


def test_files_are_handed_out_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for number, path in enumerate(paths):
        Image.new("L", (7, 5), number).save(path)
    paths[5].write_bytes(b"no picture")
    files, places, good = Source(paths, np.zeros(8, int)), np.arange(8), np.array([0, 1, 2, 3, 4, 6, 7])
    given: list[int] = []

    class Counting(ThreadPoolExecutor):
        def map(self, fn: Callable[..., Any], *items: Iterable[Any], **_: Any) -> Iterator[Any]:
            (some,) = ([*one] for one in items)
            given.append(len(some))
            return super().map(fn, some)

    def all_of_it() -> tuple[list[bytes], tuple[list[int], dict[int, str]], list[int]]:
        left, problems = readable(files, GREY, places)
        kept = fitted(files, GREY, good).pictures
        assert isinstance(kept, Some)
        return prints.contents(paths), (left.tolist(), problems), kept[good][:, 0, 0, 0].tolist()

    expected = all_of_it()
    monkeypatch.setattr(ahead, "AHEAD", 3)
    for module in (prints, source):
        monkeypatch.setattr(module, "ThreadPoolExecutor", Counting)
    assert all_of_it() == expected and expected[2] == good.tolist() and [*expected[1][1]] == [5]
    assert given == [3, 3, 2, 3, 3, 1, 3, 3, 2]
