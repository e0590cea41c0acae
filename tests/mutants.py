"""Change the code in one place after another, and see that a test fails each time.

``python -m tests.mutants`` tries all of `mutants.txt` and prints which changes no test
noticed; ``--only WORD`` tries those with this word in them. It exits with 1 where
there is one without a reason, and with 2 where the table itself is wrong.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests" / "mutants.txt"
_SECONDS = 120  # that the tests of one change may take
_FAILED = re.compile(r"^\d+ (failed|error)|=+ secrets that were said", re.M)
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis")
_PYTEST = [
    *(sys.executable, "-m", "pytest", "-x", "-q", "-o", "addopts="),
    *("-p", "no:xdist", "-p", "no:randomly", "-p", "no:cacheprovider"),
]


@dataclass(frozen=True)
class Mutant:
    """A change, the tests that should notice, and why none does, if none does."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.old}  ->  {self.new}"


def mutants(text: str | None = None) -> list[Mutant]:
    """Read the table."""
    found, file = [], ""
    for block in (TABLE.read_text() if text is None else text).split("\n\n"):
        lines = [line for line in block.splitlines() if line[:1] != "#"]
        if lines and lines[0][0] == "[":
            file = lines.pop(0).strip("[]")
        marked = {mark: [x[2:] for x in lines if x[:2] == mark] for mark in _MARKS}
        plain = (line for line in lines if line[:2] not in _MARKS)
        tests = tuple(f"tests/{test}" for test in plain)
        for old, new in zip(marked["- "], marked["+ "], strict=True):
            found.append(Mutant(file, old, new, tests, " ".join(marked["! "])))
    return found


_MARKS = ("- ", "+ ", "! ")


def misplaced(table: Iterable[Mutant]) -> list[str]:
    """Name the changes of a text that is not there exactly once."""
    return [str(m) for m in table if (ROOT / m.file).read_text().count(m.old) != 1]


def run(tree: Path, tests: Iterable[str], seconds: float | None) -> tuple[str, str]:
    """Run tests in a copy of the tree; return what came of it, and what was said."""
    with subprocess.Popen(
        [*_PYTEST, *tests],
        cwd=tree,
        env={**os.environ, "REQUIRE_SERVICES": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return "not tried", f"Its tests took more than {seconds} seconds."
    if process.returncode == 0:
        return "survived", said
    is_noticed = process.returncode == 1 and _FAILED.search(said)
    return "noticed" if is_noticed else "not tried", said


def outcome(mutant: Mutant, trees: SimpleQueue[Path]) -> tuple[str, str]:
    """Try a change in a copy of the tree that nobody else uses."""
    tree = trees.get()
    path, text = tree / mutant.file, (tree / mutant.file).read_text()
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        return run(tree, mutant.tests, _SECONDS)
    finally:
        path.write_text(text)
        trees.put(tree)


def main() -> int:
    """Try the table; return the exit status."""
    parser = argparse.ArgumentParser("tests.mutants")
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--at-once", type=int, default=2, metavar="NUMBER")
    given = parser.parse_args()
    table = [m for m in mutants() if given.only in f"{m} {m.tests}"]
    if not table:
        print("No change has this word in it.")
        return 2
    if lost := misplaced(table):
        print("Not there exactly once:", *lost, sep="\n  ")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(given.at_once):
            tree = Path(folder, str(number))
            trees.put(shutil.copytree(ROOT, tree, symlinks=True, ignore=_LEFT_OUT))
        named = sorted({test for mutant in table for test in mutant.tests})
        without, said = run(tree, named, None)
        if without != "survived":
            print(said, "These tests have to pass where nothing is changed.", sep="\n")
            return 2
        with ThreadPoolExecutor(given.at_once) as pool:
            return told(
                zip(table, pool.map(lambda m: outcome(m, trees), table), strict=True)
            )


def told(tried: Iterable[tuple[Mutant, tuple[str, str]]]) -> int:
    """Print what became of each change but those noticed; return the exit status."""
    counts: Counter[str] = Counter()
    for mutant, (what, said) in tried:
        what = "excused" if what == "survived" and mutant.reason else what
        counts[what] += 1
        if what != "noticed":
            why = mutant.reason or said.strip()
            print(f"{what}: {mutant}", *why.splitlines(), sep="\n    ", flush=True)
    print(", ".join(f"{number} {what}" for what, number in counts.items()))
    return 2 if counts["not tried"] else 1 if counts["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())
