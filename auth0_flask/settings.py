"""The settings: from the environment and `.env`, checked all at once, frozen."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from secrets import token_hex
from typing import Annotated, Self
from urllib.parse import SplitResult, urlsplit

import click
import httpx
from auth0_server_python.auth_schemes.client_assertion import (
    validate_client_assertion_key,
)
from auth0_server_python.error import ConfigurationError
from dotenv import dotenv_values, find_dotenv
from flask import current_app
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from pydantic_core import ErrorDetails

_NEW_KEY = "python3 -c 'import secrets; print(secrets.token_hex(32))'"
_DASHBOARD = (
    "You find it at https://manage.auth0.com, Applications, "
    "your Regular Web Application, Settings."
)
_ABSENT = "is missing, or still the one of .env.example"
_WORDS = {  # by pydantic's types of errors
    "missing": _ABSENT,
    "int_parsing": "is not a whole number such as 86400",
    "bool_parsing": "is neither true nor false",
}
_NO_ADDRESS = "is not an address such as http://localhost:5000/callback"
_NO_ORIGINS = "is not a list of origins such as https://www.example.com"
_PLACEHOLDERS = {
    *("", "your-tenant.eu.auth0.com", "your-client-id", "your-client-secret"),
    "your-secret-of-32-bytes-or-more",
}
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?")
_QUOTED = re.compile(r"""(["']).*\1""", re.DOTALL)
_CREDENTIALS = ("AUTH0_CLIENT_SECRET", "AUTH0_CLIENT_ASSERTION_SIGNING_KEY")
_TRUE = {"1", "true", "t", "yes", "y"}
_PROXIES = {"http_proxy", "https_proxy", "all_proxy"}


class SetupError(click.ClickException):
    """The app is set up wrongly; ``flask run`` prints this without a traceback.

    Attributes:
        problems: One sentence each: the variable, what is wrong, the cure.
            Never a value.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(
            f"The Auth0 login is not set up yet:\n{lines}\n"
            "Settings are read from the environment and from "
            f"{_dotenv() or f'a file .env, which is not in {os.getcwd()} or above it'} "
            "(.env.example shows them all)."
        )


def network_setup_error(error: Exception) -> SetupError:
    """Name the variable that keeps an HTTP client from being made."""
    if isinstance(error, OSError) and os.environ.get("SSL_CERT_FILE"):
        cure = "Name a file of certificates in PEM, or unset it."
        return SetupError((f"SSL_CERT_FILE cannot be read. {cure}",))
    names = sorted(n for n in os.environ if n.lower() in _PROXIES and os.environ[n])
    which = " or ".join(names) or "The proxy of this system"
    cure = "Set an address such as http://proxy:3128 (socks5:// needs httpx[socks])."
    return SetupError((f"{which} is not a proxy that can be used. {cure}",))


def is_loopback(hostname: str | None) -> bool:
    """Tell whether a name is this machine's own (RFC 6761 section 6.3)."""
    name = hostname or ""
    return name in {"localhost", "127.0.0.1", "::1"} or name.endswith(".localhost")


def _domain(value: str) -> str:
    url = _url(value if "://" in value else f"https://{value}")
    domain, is_more = url.netloc.decode(), url.userinfo or url.raw_path.strip(b"/")
    if url.scheme != "https" or is_more or not _DOMAIN.fullmatch(domain):
        raise ValueError("is not a domain such as tenant.eu.auth0.com, without a path")
    return domain


def _url(value: str) -> httpx.URL:
    """Read an address; its host becomes what browsers send (RFC 5891)."""
    try:
        urlsplit(value).port  # noqa: B018 - which says whether there can be such a port
        return httpx.URL(value)
    except (httpx.InvalidURL, ValueError):
        return httpx.URL()


def _address(value: str, *, said: str = _NO_ADDRESS) -> str:
    url = _url(value)
    is_web = url.scheme in {"http", "https"} and url.host
    if not is_web or url.userinfo or url.fragment:
        raise ValueError(said)
    if url.scheme == "http" and not is_loopback(url.host):
        raise ValueError("must begin with https://, except on localhost")
    # as it was written, which Auth0 compares, but for capitals and umlauts in the host
    return value if url.raw_host.decode() in value else str(url)


def _origin(value: str) -> str:
    origin = _address(value, said=_NO_ORIGINS).rstrip("/")
    if origin.count("/") > 2 or "?" in origin:
        raise ValueError(_NO_ORIGINS)
    return origin


def _secrets(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values or any(len(value.encode()) < 32 for value in values):
        raise ValueError("needs at least 32 bytes (each, where there are several)")
    return values


def _private_key(value: str) -> str:
    key = value.replace("\\n", "\n")  # as some put a PEM into one line
    try:
        validate_client_assertion_key(key, "RS256")
    except ConfigurationError:
        raise ValueError("is not a private RSA key in PEM form (PKCS#8)") from None
    return key


def _redis(value: str) -> str:
    schemes = ("redis://", "rediss://", "unix://")
    if value and not (value.startswith(schemes) and _url(value).scheme):
        raise ValueError("is not an address such as redis://localhost:6379/0")
    return value


def _scope(value: str) -> str:
    if "openid" not in value.split():
        raise ValueError("must contain openid; without it there is no user")
    return value


_Words = BeforeValidator(lambda v: v.split() if isinstance(v, str) else v)
_Seconds = Annotated[int, Field(gt=0, le=315_360_000)]  # ten years


class Settings(BaseModel):
    """All settings, each under the name of its environment variable.

    Frozen; its ``repr`` shows no secret.
    `problems` is empty where all is well; otherwise it says what is wrong, and the
    other values are those of `for_tests`.
    """

    model_config = ConfigDict(
        alias_generator=lambda field: f"AUTH0_{field.upper()}",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    domain: Annotated[str, AfterValidator(_domain)] = Field(description=_DASHBOARD)
    client_id: str = Field(description=_DASHBOARD)
    client_secret: str | None = Field(default=None, repr=False)
    client_assertion_signing_key: (
        Annotated[str, AfterValidator(_private_key)] | None
    ) = Field(default=None, repr=False)
    secrets: Annotated[tuple[str, ...], _Words, AfterValidator(_secrets)] = Field(
        validation_alias="AUTH0_SECRET",
        repr=False,
        description=f"Make one with: {_NEW_KEY}",
    )
    redirect_uri: Annotated[str, AfterValidator(_address)] = Field(
        description="It is the address of your callback route, the same as in "
        "Allowed Callback URLs; http://localhost:5000/callback for a start.",
    )
    scope: Annotated[str, AfterValidator(_scope)] = "openid profile email"
    audience: str | None = None
    organization: str | None = None
    pushed_authorization_requests: bool = False
    connections: Annotated[tuple[str, ...], _Words] = ()
    allowed_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_origin)], ...], _Words
    ] = ()
    session_idle_seconds: _Seconds = 86_400
    session_max_seconds: _Seconds = 604_800
    keep_id_token: bool = True
    revocations_path: str | None = None
    redis_url: Annotated[str, AfterValidator(_redis)] | None = Field(
        default=None, repr=False
    )
    problems: tuple[str, ...] = Field(default=(), validation_alias="")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings; never raise, and write nothing to ``os.environ``.

        Args:
            environment: Read instead of ``os.environ`` and the nearest `.env`, of
                which only our names are read; a variable in the environment wins,
                also where it is empty.

        Returns:
            The settings, or those of `for_tests` with `problems`.
        """
        problems: tuple[str, ...] = ()
        if environment is None:
            dotenv, problems = read_dotenv()
            environment = {**dotenv, **os.environ}
        given = given_settings(environment)
        if not any(name in given for name in _CREDENTIALS):
            problems += (f"{' (or '.join(_CREDENTIALS)}) {_ABSENT}. {_DASHBOARD}",)
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False)
            problems = (*map(_sentence, found), *problems)
        return cls.for_tests(problems) if problems else settings

    @classmethod
    def for_tests(cls, problems: tuple[str, ...] = ()) -> Self:
        """Return values that reach no tenant, for tests and unfinished setups.

        The secret is random: nobody may sign in with what is published.
        """
        return cls(
            domain="tenant.auth0.invalid",
            client_id="test-client",
            client_secret="test-client-secret",  # noqa: S106 - signs in nowhere
            secrets=(token_hex(32),),
            redirect_uri="http://localhost:5000/callback",
            revocations_path="none",
            problems=problems,
        )

    def require(self) -> None:
        """Raise `SetupError` where the settings are wrong, but not in tests."""
        if self.problems and not (current_app and current_app.testing):
            raise SetupError(self.problems)

    @property
    def callback(self) -> SplitResult:
        """`redirect_uri`, split."""
        return urlsplit(self.redirect_uri)

    @property
    def origin(self) -> str:
        """Scheme, host and port that browsers reach the app at."""
        return f"{self.callback.scheme}://{self.callback.netloc}"

    @property
    def browser_origins(self) -> str:
        """Where this app sends browsers to sign in and out, for a ``form-action``.

        The local tenant serves browsers at a plain http port beside its domain's.
        """
        origin = f"https://{self.domain}"
        local = is_loopback(self.domain.partition(":")[0])
        return f"{origin} http://localhost:* http://127.0.0.1:*" if local else origin


def setting_names() -> list[str]:
    """Return the names of the environment variables that are read."""
    aliases = [field.validation_alias for field in Settings.model_fields.values()]
    return [str(alias) for alias in aliases if alias]


def given_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that are there: neither empty nor as in .env.example."""
    found = {name: environment.get(name, "").strip() for name in setting_names()}
    for name, value in found.items():
        if _QUOTED.fullmatch(value):  # `docker run --env-file` leaves quotes there
            found[name] = value[1:-1].strip()
    return {n: value for n, value in found.items() if value not in _PLACEHOLDERS}


def misspelled_settings() -> dict[str, str]:
    """Return the names that are set and look like a setting's, and that setting's."""
    known, found = setting_names(), {}
    for name in {**read_dotenv()[0], **os.environ}:
        if name.startswith(("AUTH0_", "AUTHO_")) and name not in known:
            for near in get_close_matches(name, known, n=1, cutoff=0.85):
                found[name] = near
    return found


def read_dotenv() -> tuple[dict[str, str], tuple[str, ...]]:
    """Return what the nearest `.env` says, and what is wrong with it.

    It is looked for from the working directory upwards, and not at all where
    ``PYTHON_DOTENV_DISABLED`` is set.
    """
    if not (path := _dotenv()):
        return {}, ()
    try:
        found = dotenv_values(path, interpolate=False)
        return {name: value or "" for name, value in found.items()}, ()
    except UnicodeDecodeError:
        return {}, ("The file .env is not in UTF-8. Save it in that encoding.",)
    except OSError:
        return {}, ("The file .env cannot be read. Correct its permissions.",)


def is_dotenv_disabled() -> bool:
    """Tell whether ``PYTHON_DOTENV_DISABLED`` is set to what python-dotenv obeys."""
    return os.environ.get("PYTHON_DOTENV_DISABLED", "").lower() in _TRUE


def _dotenv() -> str:
    return "" if is_dotenv_disabled() else find_dotenv(usecwd=True)


def _sentence(problem: ErrorDetails) -> str:
    cures = {f.validation_alias: f.description for f in Settings.model_fields.values()}
    name = str(problem["loc"][0])
    what = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    what = _WORDS.get(problem["type"], what)
    return f"{name} {what}. {cures[name] or ''}".rstrip()
