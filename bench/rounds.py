"""Measure all rows of a table in turn, so that load affects all alike."""

from __future__ import annotations

import gc
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from statistics import median
from typing import Any, NamedTuple

#: The number of rounds, and whether to measure CPU time.
options = Namespace(rounds=7, cpu=False)


class Row(NamedTuple):
    """A row: its name, a timer for each column, and the row to compare it with."""

    name: str
    timers: Sequence[Callable[[], float]]
    base: str = ""  # the first row by default


def timer(
    function: Callable[[Any], object],
    arguments: Sequence[Any],
    times: int = 500,
    clock: Callable[[], float] | None = None,
) -> Callable[[], float]:
    """Return a function that makes the next ``times`` calls and returns µs per call."""
    endless = cycle(arguments)
    clock = clock or (time.process_time if options.cpu else time.perf_counter)

    def microseconds() -> float:
        chosen = list(islice(endless, times))
        gc.collect()
        began = clock()
        for argument in chosen:
            function(argument)
        return (clock() - began) / times * 1e6

    return microseconds


def print_table(title: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Measure all rows in each round, after a warm-up round, and print a table.

    It has medians, and the median and range of the ratios to the first column of the
    row's base in the same round.
    """
    results = {row.name: [list[float]() for _ in row.timers] for row in rows}
    for _ in range(options.rounds + 1):
        for row in rows:
            for values, measure in zip(results[row.name], row.timers, strict=True):
                values.append(measure())
    print(f"{title}{' (CPU time)' if options.cpu else ''}:\n")
    print("| |", "".join(f" {name} | ratio |" for name in columns))
    print("|---|", "--:|--:|" * len(columns), sep="")
    for row in rows:
        cells, base = [row.name], results[row.base or rows[0].name][0][1:]
        for _, *values in results[row.name]:
            ratios = [a / b for a, b in zip(values, base, strict=True)]
            spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            cells += [f"{median(values):,.0f}", spread]
        print("|", " | ".join(cells + [""] * (2 * len(columns) + 1 - len(cells))), "|")
    print(flush=True)
