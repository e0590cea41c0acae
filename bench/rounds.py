"""Measuring in turn, so that what disturbs one disturbs all, and printing ratios."""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from statistics import median
from typing import Any, NamedTuple

_options: dict[str, Any] = {"rounds": 7, "clock": time.perf_counter, "is_cpu": False}


class Row(NamedTuple):
    """A row: its name, what measures for each column, the row it is held against."""

    name: str
    measures: Sequence[Callable[[], float]]
    base: str = ""  # the first row


def use(rounds: int, *, cpu: bool) -> None:
    """Set how often everything is measured, and by which clock."""
    clock = time.process_time if cpu else time.perf_counter
    _options.update(rounds=rounds, clock=clock, is_cpu=cpu)


def each(
    do: Callable[[Any], object],
    given: Sequence[Any],
    times: int = 500,
    clock: Callable[[], float] | None = None,
) -> Callable[[], float]:
    """Return what times one call, in µs; it goes on in ``given`` from time to time."""
    turn, clock = cycle(given), clock or _options["clock"]

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
    found: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for _ in range(_options["rounds"] + 1):
        for row in rows:
            for column, measure in enumerate(row.measures):
                found[row.name, column].append(measure())
    print(f"{title}{' (CPU time)' if _options['is_cpu'] else ''}:\n")
    print("| |", "".join(f" {name} | ratio |" for name in columns))
    print("|---|", "--:|--:|" * len(columns), sep="")
    for row in rows:
        cells, base = [row.name], found[row.base or rows[0].name, 0][1:]
        for column in range(len(row.measures)):
            values = found[row.name, column][1:]
            ratios = [a / b for a, b in zip(values, base, strict=True)]
            spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            cells += [f"{median(values):,.0f}", spread]
        print("|", " | ".join([*cells, *["", ""] * (len(columns) - column - 1)]), "|")
    print(flush=True)
