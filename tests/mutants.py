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
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests" / "mutants.txt"
_SECONDS = 120  # that the tests of one change may take
_MARKS = ("- ", "+ ", "! ")
_FAILED = re.compile(r"^\d+ (failed|error)|=+ secrets that were said", re.M)
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis")
_PYTEST = [
    *(sys.executable, "-m", "pytest", "-x", "-q", "-o", "addopts="),
    *("-p", "no:xdist", "-p", "no:randomly", "-p", "no:cacheprovider"),
]


class Mutant(NamedTuple):
    """A change, the tests that should notice, and why none does, if none does."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.old}  ->  {self.new}"


def mutants() -> list[Mutant]:
    found, file = [], ""
    for block in TABLE.read_text().split("\n\n"):
        lines = [line for line in block.splitlines() if line[:1] != "#"]
        if lines and lines[0][0] == "[":
            file = lines.pop(0).strip("[]")
        marked = {mark: [x[2:] for x in lines if x[:2] == mark] for mark in _MARKS}
        tests = tuple(f"tests/{x}" for x in lines if x[:2] not in _MARKS)
        for old, new in zip(marked["- "], marked["+ "], strict=True):
            found.append(Mutant(file, old, new, tests, " ".join(marked["! "])))
    return found


def misplaced(table: Iterable[Mutant]) -> list[str]:
    """Name the changes of a text that is not there exactly once."""
    return [str(m) for m in table if (ROOT / m.file).read_text().count(m.old) != 1]


def run(tests: Iterable[str], tree: Path, seconds: int) -> tuple[str, str]:
    """Run tests in a tree; return what came of it, and what was said."""
    command = ["timeout", str(seconds), *_PYTEST, *tests]
    ended = subprocess.run(
        command, cwd=tree, capture_output=True, text=True, check=False
    )
    said = ended.stdout + ended.stderr
    if ended.returncode == 1 and _FAILED.search(said):
        return "noticed", said
    return "not tried" if ended.returncode else "survived", said


def outcome(mutant: Mutant) -> tuple[str, str]:
    """Try a change in a copy of the tree."""
    with tempfile.TemporaryDirectory() as folder:
        tree = shutil.copytree(
            ROOT, Path(folder, "tree"), ignore=_LEFT_OUT, symlinks=True
        )
        path = tree / mutant.file
        path.write_text(path.read_text().replace(mutant.old, mutant.new))
        return run(mutant.tests, tree, _SECONDS)


def main() -> int:
    """Try the table; return the exit status."""
    parser = argparse.ArgumentParser("tests.mutants")
    parser.add_argument("--only", default="", metavar="WORD")
    word = parser.parse_args().only
    os.environ["REQUIRE_SERVICES"] = "1"
    table = [m for m in mutants() if word in f"{m} {m.tests}"]
    wrong = misplaced(table) if table else ["No change has this word in it."]
    if not wrong:
        named = sorted({test for mutant in table for test in mutant.tests})
        without, said = run(named, ROOT, 0)
        if without != "survived":
            wrong = [said, "These tests have to pass where nothing is changed."]
    if wrong:
        print(*wrong, sep="\n")
        return 2
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(2) as pool:
        for mutant, (what, said) in zip(table, pool.map(outcome, table), strict=True):
            kind = "excused" if what == "survived" and mutant.reason else what
            counts[kind] += 1
            if kind != "noticed":
                why = mutant.reason or said.strip()
                print(f"{kind}: {mutant}", *why.splitlines(), sep="\n    ", flush=True)
    print(", ".join(f"{number} {what}" for what, number in counts.items()))
    return 2 if counts["not tried"] else int(counts["survived"] > 0)


if __name__ == "__main__":
    sys.exit(main())
