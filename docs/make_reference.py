"""Writes the reference from the docstrings: ``python -m docs.make_reference``.

The text of a function or class is its docstring, that of another object the comment
above it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import auth
from auth0_flask import Auth0Client, Settings, SetupError, StoreUnavailable
from auth0_flask.cli import auth0_commands
from auth0_flask.event_loops import reuse_event_loops
from auth0_flask.stores.shared import Device
from auth0_flask.tenant import Tenant, provider, pytest_plugin
from auth0_flask.tenant.faults import Fault

PAGE = Path(__file__).with_name("reference.md")
ROOT = PAGE.parents[1]
SOURCES = [ROOT / "auth.py", *sorted((ROOT / "auth0_flask").glob("*.py"))]
# fmt: off
#: What tests change at the local tenant, besides its settings.
_CONTROLS = (
    "add_user", "change_user", "add_organization", "enroll", "otp_for",
    "passwordless_code", "passwordless_link", "approve_backchannel", "logout_token",
    "finish_backchannel", "revoke_refresh_tokens", "rotate_keys", "forge", "fail",
    "count",
)
# fmt: on
_LISTS = ("Args:", "Attributes:", "Raises:", "Returns:")
_INTRODUCTION = """\
# Reference

`python -m docs.make_reference` writes this page from the docstrings.
Settings are in the [README](../README.md#settings).
"""


def reference() -> str:
    """Return the page."""
    return "\n".join([_INTRODUCTION, *_parts()])


def _parts() -> Iterator[str]:
    yield "## Names in `auth.py`\n"
    for name in auth.__all__:
        if name not in {"auth0", "init_app"}:
            yield _entry(name, getattr(auth, name))
        elif name == "init_app":
            yield _entry(name, auth.init_app.func, without="client")
    yield "## The client `auth0`\n"
    yield f"{_markdown(inspect.getdoc(Auth0Client) or '')}\n"
    for name, method in vars(Auth0Client).items():
        if not name.startswith("_") and inspect.isfunction(method):
            yield _entry(f"auth0.{name}", method, without="self")
    yield "## Other names in the package\n"
    for thing in (Settings, SetupError, StoreUnavailable):
        yield _entry(f"auth0_flask.{thing.__name__}", thing)
    yield _entry("auth0_flask.stores.shared.Device", Device)
    yield _entry("auth0_flask.event_loops.reuse_event_loops", reuse_event_loops)
    yield "## For tests: `auth0_flask.tenant.pytest_plugin`\n"
    for name in ("auth0_tenant", "tenant_user", "complete_login"):
        thing = getattr(pytest_plugin, name)
        yield _entry(name, inspect.unwrap(thing))
    yield from _tenant()
    yield "## Commands\n"
    for name, command in auth0_commands.commands.items():
        options = [f"- `{o.opts[0]}`: {o.help}" for o in command.params]
        text = "\n".join([_markdown(command.help or ""), "", *options]).strip()
        yield f"### `flask auth0 {name}`\n\n{text}\n"


def _tenant() -> Iterator[str]:
    yield "## For tests: the local tenant, `auth0_tenant`\n"
    yield "Settings, which every test finds as they are here:\n"
    source = inspect.getsource(provider.Settings)
    setting = r"((?:^    # .*\n)*)^    (\w+): .* = (.*?)(?:  # (.*))?$"
    for above, name, default, beside in re.findall(setting, source, re.M):
        text = beside or " ".join(line.strip(" #") for line in above.splitlines())
        usual = "" if default.startswith("field") else f" = {default}"
        about = _markdown(f": {text}") if text else ""
        yield f"- `auth0_tenant.{name}{usual}`{about}"
    yield ""
    for name in _CONTROLS:
        yield _entry(f"auth0_tenant.{name}", getattr(Tenant, name), without="self")
    for name, fault in vars(Fault).items():
        if isinstance(fault, staticmethod):
            yield _entry(f"auth0_flask.tenant.Fault.{name}", fault.__func__)


def _entry(name: str, thing: Any, without: str = "") -> str:
    """Return a name with its signature and its text."""
    shown = f"await {name}" if inspect.iscoroutinefunction(thing) else name
    if inspect.isfunction(thing):
        parameters = inspect.signature(thing).parameters.values()
        kept = [p.replace(annotation=p.empty) for p in parameters if p.name != without]
        shown += str(inspect.Signature(kept))
    is_object = not (inspect.isfunction(thing) or inspect.isclass(thing))
    text = _comment(name) if is_object else inspect.getdoc(thing) or ""
    text = re.sub(rf"^ +{without}: .*\n", "", text, flags=re.M) if without else text
    if not text:
        raise SystemExit(f"{name} has no docstring.")
    return f"### `{shown}`\n\n{_markdown(text)}\n"


def _comment(name: str) -> str:
    """Return the comment above an assignment."""
    found = re.search(rf"((?:^#.*\n)+){name} = ", "\n".join(map(_read, SOURCES)), re.M)
    return re.sub(r"^#:? ", "", found[1], flags=re.M).strip() if found else ""


def _read(path: Path) -> str:
    return path.read_text()


def _markdown(docstring: str) -> str:
    """Return a docstring's text; its arguments and the like as lists."""
    text = re.sub(r"``(.+?)``", r"`\1`", docstring, flags=re.S)
    for heading in _LISTS:
        before, found, rest = text.partition(f"\n{heading}\n")
        if found:
            section, gap, after = rest.partition("\n\n")
            items = re.sub(r"\n {8}", " ", inspect.cleandoc(f" \n{section}"))
            items = re.sub(r"\n {4}", " ", items)
            if heading != "Returns:":
                items = re.sub(r"^([\w.]+): ", r"- `\1`: ", items, flags=re.M)
            text = f"{before}\n{heading}\n\n{items}{gap}{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(reference())
