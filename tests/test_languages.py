"""The pages in English, French, Japanese and Simplified Chinese."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import read_mo
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException, default_exceptions
from werkzeug.test import TestResponse

import auth
from app import create_app
from auth0_flask import StoreUnavailable
from auth0_flask.errors import _TEXTS, CheckFailed, ClocksDiffer, login_error
from auth0_flask.guards import NotAllowed
from auth0_flask.routes import CrossSite
from auth0_flask.stores import SessionTooLarge
from auth0_flask.tenant import Fault, Tenant
from translations.update import OF_FLASK, catalogs, texts

CATALOGS = [pytest.param(path, c, id=str(c.locale)) for path, c in catalogs()]
HTML = {"Accept": "text/html"}
NOVEMBER = 1_700_000_000


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def asked_of_auth0(start: TestResponse) -> dict[str, list[str]]:
    """Return what a login asks Auth0 for."""
    return parse_qs(urlsplit(start.headers["Location"]).query)


def language_of(page: TestResponse) -> str:
    """Return what a page says it is written in."""
    found = re.search(r'<html lang="([^"]*)"', page.text)
    assert found, page.text
    return found[1]


def links_of(page: TestResponse) -> dict[str, str]:
    """Return where the links of a page lead, by their words."""
    links = re.findall(r'<a [^>]*?href="([^"]*)"[^>]*>([^<]+)</a>', page.text)
    return {unescape(words): unescape(url) for url, words in links}


@pytest.mark.parametrize(("path", "catalog"), CATALOGS)
def test_every_text_is_translated_and_what_the_app_reads_is_what_was_written(
    path: Path, catalog: Catalog
) -> None:
    found = {message.id: message.string for message in catalog if message.id}
    assert set(found) == texts(), "python -m translations.update"
    assert all(found.values())
    assert not [error for message in catalog for error in message.check(catalog)]
    with path.with_suffix(".mo").open("rb") as file:
        assert {m.id: m.string for m in read_mo(file) if m.id} == found


@pytest.mark.parametrize(
    ("asked", "accepted", "language"),
    [
        (None, "fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7, *;q=0.5", "fr"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh-Hans"),
        (None, "en;q=0.5, JA;q=0.6", "ja"),
        (None, "de, ja;q=0", "en"),
        (None, "fr_FR.UTF-8; drop table, ;;;=,", "en"),
        ("zh_Hans", "fr", "zh-Hans"),
        ("../fr", "ja", "ja"),
        ("fr'\"><b>", "", "en"),
    ],
)
def test_a_page_is_in_the_language_chosen_or_else_the_first_asked_for_that_there_is(
    client: FlaskClient, asked: str | None, accepted: str, language: str
) -> None:
    query, headers = {"lang": asked} if asked else {}, {"Accept-Language": accepted}
    page = client.get("/", query_string=query, headers=headers)

    assert page.status_code == 200
    assert language_of(page) == language
    assert ("Accept-Language" in page.vary) == (asked != "zh_Hans")
    assert ("/login" in links_of(page).values()) == (asked != "zh_Hans")
    assert page.headers["Cache-Control"] == "no-store"


def test_a_language_that_was_chosen_stays_from_page_to_page_and_outlives_a_failure(
    client: FlaskClient, tenant: Tenant
) -> None:
    headers = {**HTML, "Accept-Language": "ja"}
    chosen = client.get(links_of(client.get("/", headers=headers))["Français"])
    asked = asked_of_auth0(client.get(links_of(chosen)["Créer un compte"]))
    assert asked["ui_locales"] == ["fr-FR"]
    refusal = {"error": "access_denied", "state": asked["state"]}
    denied = client.get("/callback", query_string=refusal, headers=headers)
    assert denied.status_code == 403
    assert language_of(denied) == "fr"
    again = client.get(links_of(denied)["Réessayer"], headers=headers)
    assert asked_of_auth0(again)["ui_locales"] == ["fr-FR"]
    assert links_of(denied)["Français"] == "/?lang=fr"  # not to a used-up callback
    overruled = client.get("/login?lang=fr&ui_locales=de")
    assert asked_of_auth0(overruled)["ui_locales"] == ["de"]

    tenant.fail("discovery", Fault.status(503))
    auth.auth0.verifier.forget()
    away = client.get("/profile?lang=ja", headers=HTML).headers["Location"]
    down = client.get(away, headers=HTML)
    assert down.status_code == 502
    assert language_of(down) == "ja"
    again_at = parse_qs(urlsplit(links_of(down)["もう一度試す"]).query)
    assert again_at["return_to"] == ["/profile?lang=ja"]

    auth.login_as(client, name="Zoé")
    profile = client.get(links_of(client.get("/?lang=fr"))["Voir votre profil"])
    assert language_of(profile) == "fr"
    switched = client.get(links_of(profile)["简体中文"])
    assert switched.request.path == "/profile"
    assert language_of(switched) == "zh-Hans"


def test_the_links_to_other_languages_lead_to_the_same_page_without_its_secrets(
    client: FlaskClient,
) -> None:
    home = client.get("/?page=2&page=3&_scheme=x&q=%26&logout_token=secret&token=s")
    french = client.get(links_of(home)["Français"])
    assert language_of(french) == "fr"
    asked = [("page", "2"), ("page", "3"), ("_scheme", "x"), ("q", "&"), ("lang", "fr")]
    assert [*french.request.args.items(multi=True)] == asked
    assert "token" not in home.text

    away = client.get("//x.example/no", headers=HTML)  # which cannot be asked for again
    assert away.status_code == 404
    assert links_of(away)["Français"] == "/?lang=fr"


def test_answers_for_programs_stay_english_and_vary_by_nothing_else(
    client: FlaskClient,
) -> None:
    program = {"Accept-Language": "fr", "Accept": "application/json"}
    failed = client.get("/callback?code=x&state=y&lang=fr", headers=program)
    assert json.loads(failed.text)["detail"].startswith("This sign-in is unknown here")
    auth.login_as(client)
    for path, status in {"/api/me": 200, "/nowhere": 404, "/logout": 302}.items():
        answer = client.get(path, headers=program)
        assert answer.status_code == status
        assert "Accept-Language" not in answer.vary


@pytest.mark.parametrize("lang", ["fr", "ja", "zh-Hans"])
def test_no_page_has_a_word_of_english(lang: str) -> None:
    """Whatever is raised, through the app itself: not only what the catalogs know."""
    app, shown = create_app(), ""
    with app.test_request_context():
        heavy = SessionTooLarge({"user": {"groups": ["many"] * 400}}, 9)
        errors: list[HTTPException] = [
            *(CheckFailed(code) for code in _TEXTS),
            *filter(None, (login_error(ClocksDiffer(n)) for n in (90, -3600))),
            *(default_exceptions[code]() for code in OF_FLASK),
            *(auth.signed_out(), NotAllowed(), CrossSite(), heavy),
            StoreUnavailable("revocations_unavailable", OSError()),
        ]

    @app.get("/raise/<int:number>")
    def fail(number: int) -> str:
        raise errors[number]

    client, guest = app.test_client(), app.test_client()
    auth.login_as(client, email="zoe@example.com", admin=False, groups=[])
    asked = [(guest, "/"), (client, "/"), (client, "/profile")]
    asked += [(guest, f"/raise/{number}") for number in range(len(errors))]
    known = [rf"(?<!\w){re.escape(text)}(?!\w)" for text in texts() - {"no"}]
    known.append(r"\b(?:the|is|this|that|you|your|not|to|of)\b")
    for browser, path in asked:
        page = browser.get(path, query_string={"lang": lang}, headers=HTML)
        words = unescape(re.sub(r"<code>.*?</code>|<[^>]*>|\s+", " ", page.text))
        assert not [english for english in known if re.search(english, words)], words
        shown += page.text
    assert re.search(r"\b90\b", shown)  # by how much the clocks differ
    assert "<code>claim groups</code>" in shown  # what does not fit into a session
    assert "%(" not in shown


@pytest.mark.parametrize(
    ("claim", "lang", "shown"),
    [
        (NOVEMBER, "en", "Nov 14, 2023, 10:13\u202fPM UTC</time>"),
        (NOVEMBER, "fr", "14 nov. 2023 à 22:13 UTC</time>"),
        (NOVEMBER, "ja", "2023/11/14 22:13 UTC</time>"),
        ("2023-11-14T22:13:20Z", "zh-Hans", "2023年11月14日 22:13 UTC</time>"),
        ("yesterday", "en", "yesterday"),
        (1e300, "en", "1e+300"),
        ("0001-01-01T00:00:00+14:00", "en", "0001-01-01T00:00:00+14:00"),
        ([7], "en", "7"),
    ],
)
def test_a_claim_that_is_a_time_is_written_as_one_and_an_odd_one_as_it_is(
    client: FlaskClient, claim: object, lang: str, shown: str
) -> None:
    auth.login_as(client, updated_at=claim)
    page = client.get("/profile", query_string={"lang": lang}).text
    value = page.partition("<code>updated_at</code>")[2].partition('<dd dir="auto">')[2]
    begin = '<time datetime="2023-11-14T22:13:20+00:00">' if "</time>" in shown else ""
    assert value.startswith(begin + shown)
