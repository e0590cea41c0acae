"""The languages of the pages: which one to use, links in it, its texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from auth0_server_python.auth_types import StartInteractiveLoginOptions
from babel import Locale
from flask import Flask, after_this_request, request, url_for
from flask_babel import Babel, get_locale, get_translations
from markupsafe import Markup, escape
from werkzeug.wrappers import Response

import auth


class Language(NamedTuple):
    """A language with a catalog in ``translations/``.

    Attributes:
        name: Its name for itself.
        at_auth0: Auth0's tag for it, a ``ui_locales``.
    """

    name: str
    at_auth0: str


#: By tag (RFC 5646); the texts in the code are English.
LANGUAGES = {
    "en": Language("English", "en"),
    "fr": Language("Français", "fr-FR"),
    "ja": Language("日本語", "ja"),
    "zh-Hans": Language("简体中文", "zh-CN"),
}
_BY_NAME = {tag.partition("-")[0]: tag for tag in LANGUAGES}
_LOCALES = {tag: Locale.parse(tag, sep="-") for tag in LANGUAGES}
_TAGS: dict[Locale | None, str] = {locale: tag for tag, locale in _LOCALES.items()}
_NO_PAGES = {None, "login", "callback", "logout"}  # endpoints
_OF_LOGIN = "auth0.language_of_login"  # in the environ: of the page it leads to
_NUMBER = re.compile(r"\b\d+\b")


def init_app(app: Flask) -> None:
    """Give templates ``_``, ``link`` and what Flask-Babel gives them."""
    Babel(app, locale_selector=_locale)  # type: ignore[no-untyped-call]  # as it comes
    app.context_processor(_in_templates)


def chosen() -> str | None:
    """Return the tag of the language that was chosen, if one was."""
    return _known(request.args.get("lang", "")) or request.environ.get(_OF_LOGIN)


def keep_choice(return_to: str) -> None:
    """Use the language in the address that a login leads back to."""
    asked = parse_qs(urlsplit(return_to).query).get("lang", [""])
    request.environ[_OF_LOGIN] = _known(asked[0])


def at_auth0(options: StartInteractiveLoginOptions) -> StartInteractiveLoginOptions:
    """Ask Auth0 for the language that was chosen, where the query asks for none."""
    keep_choice(auth.return_to({"app_state": options.app_state}))
    if (tag := chosen()) and "ui_locales" not in request.args:
        asked = options.authorization_params or {}
        options.authorization_params = {**asked, "ui_locales": LANGUAGES[tag].at_auth0}
    return options


def link(endpoint: str, **values: Any) -> str:
    """Link to a page, in the language that was chosen, if one was."""
    if tag := chosen():
        values["lang"] = tag
        if endpoint == "login":
            values.setdefault("return_to", url_for("home", lang=tag))
    return url_for(endpoint, **values)


def this_page() -> str | None:
    """Link to this page; None where it cannot be asked for again. Repeats no token."""
    if request.method != "GET" or request.endpoint in _NO_PAGES:
        return None
    page = url_for(str(request.endpoint), **(request.view_args or {}))
    asked = request.args.items(multi=True)
    query = urlencode([(n, v) for n, v in asked if not n.endswith("token")])
    return f"{page}?{query}" if query else page


def choices() -> list[tuple[str, str, str]]:
    """Return tag, name and link of each language: to this page, or else home."""
    page, _, query = (this_page() or url_for("home")).partition("?")
    kept = [(n, v) for n, v in parse_qsl(query, True) if n != "lang"]
    return [
        (tag, known.name, f"{page}?{urlencode([*kept, ('lang', tag)])}")
        for tag, known in LANGUAGES.items()
    ]


def translated(text: str | None) -> str:
    """Return an error's text in the language of the page.

    A text without a translation stays as it is.
    A number in it is ``%(number)s`` in the catalogs.
    """
    if not text:  # of which the catalogs have their header
        return ""
    translate, number = get_translations().ugettext, _NUMBER.search(text)
    template = _NUMBER.sub("%(number)s", text, count=1)
    if number and (found := translate(template)) != template:
        return str(found).replace("%(number)s", number[0])
    return str(translate(text))


def _in_templates() -> dict[str, Any]:
    return {
        "_": _translator(),
        "language": _TAGS[get_locale()],
        "languages": choices,
        "link": link,
    }


def _locale() -> Locale:
    """Return the locale of this page; Flask-Babel asks once a request."""
    return _LOCALES[chosen() or _accepted()]


def _translator() -> Callable[..., Markup]:
    """Return what translates for one request; Flask-Babel's asks anew each time."""
    translate = get_translations().ugettext

    def _(text: str, **values: Any) -> Markup:
        found = escape(translate(text))
        return found % values if values else found

    return _


def _known(asked: str) -> str | None:
    tag = asked.replace("_", "-")
    return tag if tag in LANGUAGES else None


def _accepted() -> str:
    """Return the first language the browser asks for of those that there are."""
    after_this_request(_vary_by_language)
    wanted = [tag for tag, quality in request.accept_languages if quality]
    names = (tag.lower().partition("-")[0] for tag in wanted)
    return next((_BY_NAME[name] for name in names if name in _BY_NAME), "en")


def _vary_by_language(response: Response) -> Response:
    varies = response.headers.get("Vary")  # as text: `response.vary` is slower
    name = "Accept-Language"
    response.headers["Vary"] = f"{varies}, {name}" if varies else name
    return response
