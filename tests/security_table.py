"""The tables in security/, and what they have to hold."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SECURITY = (ROOT / "SECURITY.md").read_text()
_ASVS = (ROOT / "security/asvs.md").read_text()
_CONFORMANCE = (ROOT / "security/conformance.md").read_text()

#: The levels of ASVS 5.0.0, section by section, from each one's first requirement on.
_LEVELS = {
    "3.3": (1, 2, 2, 2, 3),
    "3.4": (1, 1, 2, 2, 2, 2, 3, 3),
    "7.1": (2, 2, 2),
    "7.2": (1, 1, 1, 1),
    "7.3": (2, 2),
    "7.4": (1, 1, 2, 2, 2),
    "7.5": (2, 2, 3),
    "7.6": (2, 2),
    "10.1": (2, 2),
    "10.2": (2, 2, 3),
    "10.5": (2, 2, 2, 2, 2),
    "16.2": (2, 2, 2, 2, 2),
    "16.5": (2, 2, 2, 3),
}
#: By number, the level of every requirement that the table is about.
REQUIREMENTS = {
    f"{section}.{number}": level
    for section, levels in _LEVELS.items()
    for number, level in enumerate(levels, 1)
}
#: How a row begins that needs no test; what follows is the reason.
WITHOUT_TEST = ("By you: ", "Not met: ", "Not applicable: ")
_ROW = re.compile(r"^\| (\d+\.\d+\.\d+) \| (\d) \| (.*?) \|(.*)\|$", re.M)
_MODULE = re.compile(r"^\| `(oidcc-[^`]+)` \| (.+) \| (.+) \| (.+) \|$", re.M)


class Row(NamedTuple):
    """One requirement."""

    number: str
    level: int
    how: str
    tests: list[str]

    @property
    def has_reason(self) -> bool:
        """Whether it says why there is no test."""
        beginning = next((w for w in WITHOUT_TEST if self.how.startswith(w)), None)
        return beginning is not None and len(self.how) > len(beginning) + 10


def rows(text: str = _ASVS) -> list[Row]:
    """Read the table."""
    return [
        Row(number, int(level), how.strip(), re.findall(r"`([^`]+)`", tests))
        for number, level, how, tests in _ROW.findall(text)
    ]


def conformance() -> list[tuple[str, ...]]:
    """Read the other table: of each module its plan, what that expects, what we do."""
    return _MODULE.findall(_CONFORMANCE)


def there_are() -> set[str]:
    """Name every test, as ``file::function``."""
    return {
        f"{path.name}::{node.name}"
        for path in (ROOT / "tests").glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }
