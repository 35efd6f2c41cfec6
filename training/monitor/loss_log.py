"""The losses of every step in a CSV file, without making the device wait at each step."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from util.errors import UserError
from util.files import write_text

POSITION_COLUMNS = ["epoch", "step"]


class NonFiniteLossError(UserError):
    """A loss became infinite or NaN: nothing learned after that step is of use.

    Attributes:
        step: the first step at which it happened.
        name: the loss, the first in column order at that step.
        value: what it was.
    """

    def __init__(self, step: int, name: str, value: float) -> None:
        super().__init__(
            f"loss {name} is {value} at step {step}, expected a finite number: resume from the "
            "last checkpoint before it with a lower learning rate, or without mixed precision"
        )
        self.step = step
        self.name = name
        self.value = value


class LossLog:
    """Rows (epoch, step, one column a loss), buffered on the device until `flush`.

    A file of an earlier version, with fewer columns, gets the missing ones empty.

    Flush before a checkpoint is saved. At a resume call `truncate_after` with the checkpoint's
    step, at a fresh start with 0: then the CSV of a resumed run equals that of an uninterrupted
    one.
    """

    def __init__(
        self,
        csv_path: str | Path,
        names: Sequence[str],
        allowed_skips: int = 0,
        writes: bool = True,
    ) -> None:
        """Log the losses `names` into `csv_path`, which may hold the rows of an earlier part.

        Args:
            csv_path: the file.
            names: of the columns; "skipped" among them marks steps that changed nothing.
            allowed_skips: so many steps in a row may be marked so and hold any number.
            writes: False only watches the numbers, where another process writes them.

        Raises:
            UserError: the file has other columns.
        """
        self.path = Path(csv_path)
        self.names = list(names)
        self._allowed_skips = allowed_skips
        self._skips_in_a_row = 0
        self._writes = writes
        self._positions: list[tuple[int, int]] = []
        self._values: list[torch.Tensor] = []
        if not writes:
            return
        rows = self._read_rows()
        if rows and set(rows[0]) < set(self._header):
            write_text(self.path, _csv_text([self._header, *self._widened(rows)]))
        elif rows and rows[0] != self._header:
            raise UserError(
                f"{self.path} has the columns {','.join(rows[0])}, this run records "
                f"{','.join(self._header)}: move the file away or train under another name"
            )

    @property
    def _header(self) -> list[str]:
        return POSITION_COLUMNS + self.names

    def record(self, epoch: int, step: int, values: Mapping[str, torch.Tensor | float]) -> None:
        """Keep one step's losses; nothing waits for the device.

        The values are copied (one small kernel), so that a captured graph or a compiled step may
        overwrite its outputs, and the graph for gradients is let go.

        Args:
            epoch: from 1.
            step: optimisation steps since the start of training, this one included; grows.
            values: one number or one-element tensor for each of `names`, any device and dtype.

        Raises:
            ValueError: `values` has other names.
        """
        if set(values) != set(self.names):
            raise ValueError(f"got losses {sorted(values)}, expected {sorted(self.names)}")
        device = next((v.device for v in values.values() if isinstance(v, torch.Tensor)), None)
        ordered = [values[name] for name in self.names]
        row = [
            value.detach().reshape(()).to(torch.float32)
            if isinstance(value, torch.Tensor)
            # `full` fills on the device; a copy from the host could wait for it.
            else torch.full((), value, dtype=torch.float32, device=device)
            for value in ordered
        ]
        self._positions.append((epoch, step))
        self._values.append(torch.stack(row))

    def flush(self) -> dict[str, float]:
        """Bring all kept losses over in one transfer and append them to the CSV.

        Returns:
            Mean of each loss since the last flush over the steps that counted; empty where nothing
            was recorded.

        Raises:
            NonFiniteLossError: a loss is infinite or NaN; the rows are written all the same.
            UserError: the file cannot be written.
        """
        if not self._values:
            return {}
        values = torch.stack(self._values).cpu().numpy()
        positions = self._positions
        self._values, self._positions = [], []
        if self._writes:
            self._append(positions, values)
        counted = [
            self._counts(step, row) for (_, step), row in zip(positions, values, strict=True)
        ]
        means = values[counted].mean(axis=0, dtype=np.float64) if any(counted) else values[-1]
        return {name: float(mean) for name, mean in zip(self.names, means, strict=True)}

    def _counts(self, step: int, row: np.ndarray) -> bool:
        """Whether a step changed the weights; raises where one that did not may not be passed."""
        numbers = dict(zip(self.names, row.tolist(), strict=True))
        skipped = bool(numbers.get("skipped"))
        self._skips_in_a_row = self._skips_in_a_row + 1 if skipped else 0
        if not skipped or self._skips_in_a_row > self._allowed_skips:
            for name, value in numbers.items():
                if not math.isfinite(value):
                    raise NonFiniteLossError(step, name, value)
        return not skipped

    def truncate_after(self, step: int, epoch: float = math.inf) -> None:
        """Drop the rows of steps past `step` or epochs past `epoch`, and a last one cut short."""
        if not self._writes:
            return
        rows = self._read_rows()
        kept = [row for row in rows[1:] if self._is_whole(row)]
        kept = [row for row in kept if int(row[1]) <= step and int(row[0]) <= epoch]
        if rows:
            write_text(self.path, _csv_text([self._header, *kept]))

    def _widened(self, rows: list[list[str]]) -> list[list[str]]:
        """Rows of a file with fewer columns (the first names them) in this log's columns."""
        return [
            [dict(zip(rows[0], row, strict=False)).get(name, "") for name in self._header]
            for row in rows[1:]
        ]

    def _is_whole(self, row: list[str]) -> bool:
        return len(row) == len(self._header) and row[1].isdigit() and row[-1] != ""

    def _read_rows(self) -> list[list[str]]:
        if not self.path.exists():
            return []
        try:
            with self.path.open(newline="", encoding="utf-8") as stream:
                return [row for row in csv.reader(stream) if row]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(
                f"cannot read the loss log {self.path}: {error}; move it away"
            ) from error

    def _append(self, positions: list[tuple[int, int]], values: np.ndarray) -> None:
        # The shortest text that gives the same float32 back.
        rows = [
            [str(epoch), str(step), *(str(value) for value in row)]
            for (epoch, step), row in zip(positions, values, strict=True)
        ]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists() or self.path.stat().st_size == 0
            with self.path.open("a", encoding="utf-8", newline="") as stream:
                stream.write(_csv_text([self._header, *rows] if new else rows))
                stream.flush()
                # On the disk before the checkpoint that follows, so that it never runs ahead.
                os.fsync(stream.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write the loss log {self.path}: {error}; give it space and permission"
            ) from error


def _csv_text(rows: list[list[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
