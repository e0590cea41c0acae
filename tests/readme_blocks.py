"""The pages' blocks of code, and running those that are for a shell."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from servers import BIN, ROOT, clean_environment
from visitor import http_browser
from watch import watch

README = (ROOT / "README.md").read_text()
#: By its path, every page for those who use or change this project.
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for folder in (ROOT, ROOT / "docs", ROOT / "security")
    for path in sorted(folder.glob("*.md"))
}
#: How the blocks begin that make an environment; .ci/run makes its own by one.
SETUP = re.compile(
    r"python3 -m venv \.venv && \. \.venv/bin/activate "
    r"&& pip install -r (requirements\S*\.txt) && "
)
_FENCE = re.compile(r"^( *)```(.*)\n((?:.*\n)*?)^ *```$", re.M)
_ADDRESS = re.compile(r"http://(?:localhost|127\.0\.0\.1):\d+")


@dataclass(frozen=True)
class Block:
    """A block of code, as it stands there but for its indentation."""

    language: str  # behind the backticks
    code: str
    before: str  # the line of text
    page: str = "README.md"

    @property
    def is_run(self) -> bool:
        """Whether the page gives no reason for not running it."""
        return not re.fullmatch(r"No test runs this block: .+\.", self.before)

    @property
    def command(self) -> str:
        """The code without what makes an environment for it."""
        return SETUP.sub("", self.code)

    def __str__(self) -> str:
        """Name it in a list of tests."""
        return f"{self.page}: {self.command.partition(chr(10))[0][:40]}"


def blocks(*languages: str, text: str = "", page: str = "README.md") -> list[Block]:
    """Return the blocks of a page, or of a part of it, in some languages or all."""
    found, text = list[Block](), text or PAGES[page]
    for match in _FENCE.finditer(text):
        indent, language, code = match.groups()
        code = re.sub(rf"^{indent}", "", code, flags=re.M)
        before = text[: match.start()].rstrip().rpartition("\n")[2].strip()
        found.append(Block(language, code, before, page=page))
    return [b for b in found if not languages or b.language in languages]


def chapter(title: str, page: str = "README.md") -> str:
    """Return the text below a heading of a page."""
    found = PAGES[page].partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert found, f"{page} has no chapter {title!r}."
    return found


def copy_project(folder: Path) -> Path:
    """Copy what somebody has who cloned it, and no settings of their own."""
    ignore = shutil.ignore_patterns(
        *("*cache*", ".git", ".venv", ".env", ".hypothesis", "instance", "tests"),
        *("build", "dist", "*.egg-info"),
    )
    return shutil.copytree(ROOT, folder, ignore=ignore, symlinks=True)


class Shell:
    """A shell that runs a block in a folder, in a process group of its own."""

    def __init__(self, code: str, folder: Path, environment: Mapping[str, str]) -> None:
        self._log = folder / "output.log"
        path, quiet = f"{BIN}:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK"
        ours = {"PATH": path, "PYTHONUNBUFFERED": "1", quiet: "1"}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                ["sh", "-ec", code],
                cwd=folder,
                env=clean_environment({**ours, **environment}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_for_site(self, *, minutes: float = 1) -> str | None:
        """Return the address that it serves the app at, or None once it is done."""
        give_up = time.monotonic() + 60 * minutes
        while time.monotonic() < give_up:
            if (code := self._process.poll()) is not None:
                assert code == 0, self.output
                return None
            for site in _ADDRESS.findall(self.output):
                with suppress(httpx.HTTPError), http_browser() as http:
                    if http.get(f"{site}/login").has_redirect_location:
                        return str(site).replace("127.0.0.1", "localhost")
            time.sleep(0.05)
        raise AssertionError(f"It neither ends nor serves:\n{self.output}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End all that it started, and wait until that is so."""
        watch.hear_server("what a program said", self.output)
        for _try in range(100):
            try:  # again and again, since a worker that has just begun may miss it
                os.killpg(self._process.pid, signal.SIGTERM)
            except ProcessLookupError:
                return
            self._process.poll()
            time.sleep(0.2)
        os.killpg(self._process.pid, signal.SIGKILL)
        raise AssertionError(f"It does not end:\n{self.output}")
