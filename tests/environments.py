"""Environments that have some packages and no others."""

from __future__ import annotations

import shutil
import venv
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement


def environment_with(folder: Path, *requirements: str) -> Path:
    """Make an environment with these, and with what they need; return its Python.

    They are links to what is installed here, in a second; pip takes half a minute.
    """
    venv.create(folder, symlinks=True)
    [site] = folder.glob("lib/*/site-packages")
    ahead, seen = [*requirements], set[str]()
    while ahead:
        if (wanted := ahead.pop()) in seen:
            continue
        seen.add(wanted)
        name, extras = Requirement(wanted).name, Requirement(wanted).extras or {""}
        for line in distribution(name).requires or ():
            marker = Requirement(line).marker
            if not marker or any(marker.evaluate({"extra": e}) for e in extras):
                ahead.append(line)
        _link(name, site, folder / "bin")
    return folder / "bin" / "python"


def _link(name: str, site: Path, scripts: Path) -> None:
    for file in distribution(name).files or ():
        here = Path(str(file.locate()))
        if file.parts[0] != "..":
            top = Path(str(distribution(name).locate_file(file.parts[0])))
            if top.name != "__pycache__" and not (site / top.name).exists():
                (site / top.name).symlink_to(top)
        elif here.parent.name == "bin":
            code = here.read_text().partition("\n")[2]
            (scripts / here.name).write_text(f"#!{scripts / 'python'}\n{code}")
            shutil.copymode(here, scripts / here.name)
