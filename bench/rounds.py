"""Measuring in turn, so that what disturbs one disturbs all, and printing ratios."""

from __future__ import annotations

import gc
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from statistics import median
from typing import Any, NamedTuple

#: How often everything is measured, and whether by CPU time.
options = Namespace(rounds=7, cpu=False)


class Row(NamedTuple):
    """A row: its name, what measures for each column, the row it is held against."""

    name: str
    measures: Sequence[Callable[[], float]]
    base: str = ""  # the first row


def each(
    do: Callable[[Any], object],
    given: Sequence[Any],
    times: int = 500,
    clock: Callable[[], float] | None = None,
) -> Callable[[], float]:
    """Return what times one call, in µs; it goes on in ``given`` from time to time."""
    turn = cycle(given)
    clock = clock or (time.process_time if options.cpu else time.perf_counter)

    def microseconds() -> float:
        chosen = list(islice(turn, times))
        gc.collect()
        began = clock()
        for one in chosen:
            do(one)
        return (clock() - began) / times * 1e6

    return microseconds


def show(title: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Measure all rows once a round, after one to warm up; print a table.

    Medians, and beside each the median and the spread of its ratios to the first
    column of the row it is held against, round by round.
    """
    found = {row.name: [list[float]() for _ in row.measures] for row in rows}
    for _ in range(options.rounds + 1):
        for row in rows:
            for values, measure in zip(found[row.name], row.measures, strict=True):
                values.append(measure())
    print(f"{title}{' (CPU time)' if options.cpu else ''}:\n")
    print("| |", "".join(f" {name} | ratio |" for name in columns))
    print("|---|", "--:|--:|" * len(columns), sep="")
    for row in rows:
        cells, base = [row.name], found[row.base or rows[0].name][0][1:]
        for _, *values in found[row.name]:
            ratios = [a / b for a, b in zip(values, base, strict=True)]
            spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            cells += [f"{median(values):,.0f}", spread]
        print("|", " | ".join(cells + [""] * (2 * len(columns) + 1 - len(cells))), "|")
    print(flush=True)
