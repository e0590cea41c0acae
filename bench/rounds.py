"""Measuring in turn, so that what disturbs one disturbs all, and printing ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

Rows = dict[str, list[float]]


def in_turn(subjects: Mapping[str, Callable[[], float]], rounds: int) -> Rows:
    """Measure every subject once a round.

    Args:
        subjects: By name; each returns one measurement.
        rounds: How many times; the first one, which warms up, is not counted.
    """
    rows: Rows = {name: [] for name in subjects}
    for turn in range(rounds + 1):
        for name, measure in subjects.items():
            value = measure()
            if turn:
                rows[name].append(value)
    return rows


def ratios(rows: Rows, name: str, base: str) -> list[float]:
    """Return what one is of the other, round by round, sorted."""
    return sorted(a / b for a, b in zip(rows[name], rows[base], strict=True))


def show(rows: Rows, *, unit: str, base: str, form: str = ",.0f") -> None:
    """Print a table of medians, and of ratios with their spread.

    Args:
        rows: What `in_turn` returned.
        unit: Of the measurements.
        base: The subject that the others are held against.
        form: How a measurement is written.
    """
    print(f"| | {unit} | of {base} |\n|---|--:|--:|")
    for name, values in rows.items():
        of_base = ratios(rows, name, base)
        spread = f"{of_base[0]:.2f} to {of_base[-1]:.2f}"
        middle = f"{statistics.median(values):{form}}"
        print(f"| {name} | {middle} | {statistics.median(of_base):.2f} ({spread}) |")
    print()
