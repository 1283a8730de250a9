"""The table every run leaves: metrics.csv, one row per step that logged something."""

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from vit.files import write_atomically

Row = dict[str, Any]


@final
class MetricsCSV(Logger):
    """Logs to ``<save_dir>/metrics.csv``. What training and validation log at one step shares a row.

    A resumed run continues the table: rows from the step it resumes at onwards, which it will log again, are dropped.
    Lightning's CSV logger deletes the table instead.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._columns: list[str] = []
        self._row: Row = {}
        self._row_start = 0

    @property
    @override
    def name(self) -> str:
        return ""

    @property
    @override
    def version(self) -> str:
        return ""

    @property
    @override
    def save_dir(self) -> str:
        return str(self.path.parent)

    @property
    def log_dir(self) -> str:
        """Where Lightning puts what belongs to this log: the run folder itself."""
        return self.save_dir

    @override
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder's config is the record."""

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self._columns:
            self._continue(step or 0)
        row = {"epoch": metrics.get("epoch", ""), "step": step, **metrics}
        same = self._row.get("step") == step
        self._row = {**self._row, **row} if same else row
        if not self._row.keys() <= set(self._columns):
            self._widen(drop_last=same)
        else:
            self._write(replace=same)

    def _continue(self, step: int) -> None:
        """Take over the rows of an interrupted run, up to ``step``; all of them for a test or validation, at step 0."""
        kept = [row for row in self._read() if int(row["step"]) < step or step == 0]
        self._columns = ["epoch", "step", *(list(kept[0])[2:] if kept else [])]
        self._rewrite(kept)

    def _widen(self, drop_last: bool) -> None:
        rows = self._read()
        self._columns += [name for name in self._row if name not in self._columns]
        self._rewrite(rows[:-1] if drop_last else rows)
        self._write(replace=False)

    def _write(self, replace: bool) -> None:
        with self.path.open("r+", newline="", encoding="utf-8") as file:
            if replace:
                file.truncate(self._row_start)
            self._row_start = file.seek(0, 2)
            csv.DictWriter(file, self._columns, restval="").writerow(self._row)

    def _read(self) -> list[Row]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, rows: list[Row]) -> None:
        def write(part: Path) -> None:
            with part.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, self._columns, restval="")
                table.writeheader()
                table.writerows(rows)

        write_atomically(self.path, write)
