"""The README: its Python runs as it stands there, its commands are those we ship."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

import auth

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in a language, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", README, re.M | re.S)
    return [re.sub(rf"^{indent}", "", code, flags=re.M) for indent, code in found]


def test_its_python_makes_an_app_that_guards_its_views(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("of_the_readme")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), vars(module))  # noqa: S102 - ours
    client = module.app.test_client()

    turned_away = client.get("/reports?month=11")
    started = client.get("/login")

    assert turned_away.headers["Location"] == "/login?return_to=/reports?month%3D11"
    assert "/authorize?" in started.headers["Location"]
    assert client.get("/callback").status_code == 400
    assert "/v2/logout?" in client.get("/logout").headers["Location"]
    assert client.post("/backchannel-logout").status_code == 400
    module.test_reports()
    auth.login_as(client)
    assert client.get("/admin").status_code == 403
    without_tokens = client.get("/orders")
    assert without_tokens.status_code == 401
    assert without_tokens.mimetype == "application/problem+json"


def test_every_public_name_is_in_its_table() -> None:
    table = README.partition("| Name | What it is |")[2].partition("\n\n")[0]
    for name in auth.__all__:
        assert re.search(rf"`{name}\b", table), name


def test_every_setting_is_in_its_table_and_in_the_example() -> None:
    from login.settings import Settings

    example = (ROOT / ".env.example").read_text()
    names = {str(f.validation_alias) for f in Settings.model_fields.values()} - {""}
    for name in {*names, "TRUSTED_PROXIES"}:
        assert f"`{name}`" in README, name
        assert f"{name}=" in example, name


def test_its_table_of_sizes_is_what_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from bench.sizes import main

    main()
    measured = capsys.readouterr().out

    stated = README[README.index(measured.partition("\n")[0]) :]
    for said, found in zip(stated.splitlines(), measured.splitlines(), strict=False):
        words, *numbers = said.strip("| ").split(" | ")
        assert found.startswith(f"| {words} |") or set(said) <= set("|-")
        for one, other in zip(numbers, found.strip("| ").split(" | ")[1:], strict=True):
            if one.replace(",", "").isdecimal():
                assert _number(other) == pytest.approx(_number(one), rel=0.02)


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
