"""Brings the catalogs up to date with pages and errors.

``python -m translations.update`` adds to each ``messages.po`` what is new, to be
translated there, drops what is gone, and writes the ``messages.mo`` that the app reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from werkzeug.exceptions import HTTPException, default_exceptions
from werkzeug.http import HTTP_STATUS_CODES

import auth0_flask
from auth0_flask import errors, stores
from auth0_flask.stores.shared import browser_in_words

HERE = Path(__file__).parent
#: What Flask itself may answer here, in Werkzeug's words.
OF_FLASK = (400, 401, 404, 405, 413, 416, 500)


def texts() -> set[str]:
    """Return every text that a page may show."""
    pages = extract_from_dir(HERE.parent / "templates", [("**.html", "jinja2")])
    unknown = browser_in_words("")
    return {*(str(found[2]) for found in pages), unknown, *_of_errors()}


def catalogs() -> Iterator[tuple[Path, Catalog]]:
    """Read the catalogs, and where they stand."""
    for path in sorted(HERE.glob("*/LC_MESSAGES/messages.po")):
        with path.open("rb") as file:
            yield path, read_po(file, locale=path.parts[-3])


def main() -> None:
    """Write all catalogs."""
    template = Catalog()
    for text in sorted(texts()):
        template.add(text)
    for path, catalog in catalogs():
        catalog.update(template, no_fuzzy_matching=True)
        with path.open("wb") as file:
            write_po(file, catalog, sort_output=True, ignore_obsolete=True, width=88)
        with path.with_suffix(".mo").open("wb") as file:
            write_mo(file, catalog)


def _of_errors() -> Iterator[str]:
    yield "That did not work just now"  # the title where it was no sign-in
    for told in errors._TEXTS.values():
        yield from told
    for code in OF_FLASK:
        yield HTTP_STATUS_CODES[code]
        yield str(default_exceptions[code].description)
    for package in (auth0_flask, stores):
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    for kind in _kinds(HTTPException):
        if kind.__module__.startswith("auth0_flask") and kind.code:
            yield getattr(kind, "title", HTTP_STATUS_CODES[kind.code])
            own = (vars(kind).get(name) for name in ("description", "hint"))
            yield from filter(None, own)
    for ahead in (7, -7):
        clocks = errors._classified([errors.ClocksDiffer(ahead)])
        yield str(clocks and clocks.description).replace("7", "%(number)s")


def _kinds(kind: type[HTTPException]) -> Iterator[type[HTTPException]]:
    for known in kind.__subclasses__():
        yield known
        yield from _kinds(known)


if __name__ == "__main__":
    main()
