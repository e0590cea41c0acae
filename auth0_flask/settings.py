"""The settings: from the environment and `.env`, checked all at once, frozen."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from secrets import token_hex
from typing import Annotated, Self
from urllib.parse import SplitResult, urlsplit

import click
import idna
from auth0_server_python.auth_schemes.client_assertion import (
    validate_client_assertion_key,
)
from auth0_server_python.error import ConfigurationError
from dotenv import dotenv_values, find_dotenv
from flask import current_app
from pydantic import (
    AfterValidator,
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

_NEW_KEY = "python3 -c 'import secrets; print(secrets.token_hex(32))'"
_DASHBOARD = (
    "You find it at https://manage.auth0.com, Applications, "
    "your Regular Web Application, Settings."
)
#: As they stand in .env.example.
_PLACEHOLDERS = {
    *("your-tenant.eu.auth0.com", "your-client-id", "your-client-secret"),
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
            "Settings are read from the environment and from the file .env "
            "(.env.example shows them all)."
        )


def network_setup_error(error: Exception) -> SetupError:
    """Name the variable that keeps an HTTP client from being made."""
    if isinstance(error, OSError) and os.environ.get("SSL_CERT_FILE"):
        cure = "Name a file of certificates in PEM, or unset it."
        return SetupError((f"SSL_CERT_FILE cannot be read. {cure}",))
    names = [n for n in os.environ if n.lower() in _PROXIES and os.environ[n]]
    cure = "Set an address such as http://proxy:3128 (socks5:// needs httpx[socks])."
    which = " or ".join(sorted(names)) or "The proxy of this system"
    return SetupError((f"{which} is not a proxy that can be used. {cure}",))


def is_loopback(hostname: str | None) -> bool:
    """Tell whether a name is this machine's own (RFC 6761 section 6.3)."""
    name = hostname or ""
    return name in {"localhost", "127.0.0.1", "::1"} or name.endswith(".localhost")


def _split(value: str, wrong: str) -> SplitResult:
    """Split an address; its host in the form that browsers send (RFC 5891)."""
    try:
        parts = urlsplit(value)
        port, host = parts.port, parts.hostname or ""
        if not host.isascii():
            host = idna.encode(host, uts46=True).decode()
    except ValueError:
        raise ValueError(wrong) from None
    if not host or "@" in parts.netloc:
        raise ValueError(wrong)
    host = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=host if port is None else f"{host}:{port}")


def _web_address(value: str, wrong: str) -> SplitResult:
    parts = _split(value, wrong)
    if parts.scheme not in {"http", "https"} or parts.fragment:
        raise ValueError(wrong)
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must begin with https:// anywhere but on localhost")
    return parts


def _one_domain(value: object) -> object:
    if callable(value):
        raise ValueError("is one domain; a resolver of several is not supported")
    return value


def _domain(value: str) -> str:
    wrong = "is not a domain such as tenant.eu.auth0.com, without a path"
    parts = _split(value if "://" in value else f"https://{value}", wrong)
    is_bare = not (parts.path.strip("/") or parts.query)
    if parts.scheme != "https" or not is_bare or not _DOMAIN.fullmatch(parts.netloc):
        raise ValueError(wrong)
    return parts.netloc


def _callback(value: str) -> str:
    wrong = "is not an address such as http://localhost:5000/callback"
    return _web_address(value, wrong).geturl()


def _origins(values: tuple[str, ...]) -> tuple[str, ...]:
    wrong = "is not a list of origins such as https://www.example.com"
    found = [_web_address(value, wrong) for value in values]
    if any(parts.path.strip("/") or parts.query for parts in found):
        raise ValueError(wrong)
    return tuple(f"{parts.scheme}://{parts.netloc}" for parts in found)


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
    wrong = "is not an address such as redis://localhost:6379/0"
    try:
        urlsplit(value).port  # noqa: B018 - reading it is what checks it
    except ValueError:
        raise ValueError(wrong) from None
    if value and not value.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError(wrong)
    return value


def _scope(value: str) -> str:
    if "openid" not in value.split():
        raise ValueError("must contain openid; without it there is no user")
    return value


def _name_of(field: str) -> str:
    return f"AUTH0_{field.upper()}"


_Several = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: value.split() if isinstance(value, str) else value),
]
_Seconds = Annotated[int, Field(gt=0, le=315_360_000)]  # ten years


class Settings(BaseModel):
    """Everything that can be set, each under its environment variable's name.

    Frozen; its ``repr`` shows no secret.
    `problems` is empty where all is well; otherwise it says what is wrong, and the
    other values are those of `for_tests`.
    """

    model_config = ConfigDict(
        alias_generator=AliasGenerator(validation_alias=_name_of),
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    domain: Annotated[str, BeforeValidator(_one_domain), AfterValidator(_domain)] = (
        Field(description=_DASHBOARD)
    )
    client_id: str = Field(description=_DASHBOARD)
    client_secret: str | None = Field(default=None, repr=False)
    client_assertion_signing_key: (
        Annotated[str, AfterValidator(_private_key)] | None
    ) = Field(default=None, repr=False)
    secrets: Annotated[_Several, AfterValidator(_secrets)] = Field(
        validation_alias="AUTH0_SECRET",
        repr=False,
        description=f"Make one with: {_NEW_KEY}",
    )
    redirect_uri: Annotated[str, AfterValidator(_callback)] = Field(
        description="It is the address of your callback route, the same as in "
        "Allowed Callback URLs; http://localhost:5000/callback for a start.",
    )
    scope: Annotated[str, AfterValidator(_scope)] = "openid profile email"
    audience: str | None = None
    organization: str | None = None
    pushed_authorization_requests: bool = False
    connections: _Several = ()
    allowed_origins: Annotated[_Several, AfterValidator(_origins)] = ()
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
        found = {n: _unquoted(environment.get(n, "")) for n in setting_names()}
        given = given_settings(environment)
        if not any(name in given for name in _CREDENTIALS):
            names, what = " (or ".join(_CREDENTIALS), _absence(found[_CREDENTIALS[0]])
            problems += (f"{names}) {what}. {_DASHBOARD}",)
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            problems = (*_sentences(error, found), *problems)
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
        local = is_loopback(urlsplit(origin).hostname)
        return f"{origin} http://localhost:* http://127.0.0.1:*" if local else origin


def setting_names() -> list[str]:
    """Return the names of the environment variables that are read."""
    aliases = [field.validation_alias for field in Settings.model_fields.values()]
    return [str(alias) for alias in aliases if alias]


def given_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that are there: neither empty nor as in .env.example."""
    found = {name: _unquoted(environment.get(name, "")) for name in setting_names()}
    return {name: value for name, value in found.items() if not _absence(value)}


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
    disabled = os.environ.get("PYTHON_DOTENV_DISABLED", "").lower() in _TRUE
    if disabled or not (path := find_dotenv(usecwd=True)):
        return {}, ()
    try:
        found = dotenv_values(path, interpolate=False)
        return {name: value or "" for name, value in found.items()}, ()
    except UnicodeDecodeError:
        return {}, ("The file .env is not in UTF-8. Save it in that encoding.",)
    except OSError:
        return {}, ("The file .env cannot be read. Correct its permissions.",)


def append_to_dotenv(path: str, lines: Mapping[str, str]) -> None:
    """Add lines to a `.env` and leave the rest as it is; say which.

    Raises:
        click.ClickException: It cannot be written.
    """
    if not lines:
        return
    try:
        # if it is made here, for its owner alone
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb+") as file:
            before = file.read()
            text = "".join(f"{name}={value}\n" for name, value in lines.items())
            begin = "\n" if before and not before.endswith(b"\n") else ""
            file.write(f"{begin}{text}".encode())
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error}") from None
    click.echo(f"Added to {path}: {', '.join(lines)}")


def _unquoted(value: str) -> str:
    """Remove quotes around a value, as ``docker run --env-file`` leaves them."""
    value = value.strip()
    return value[1:-1].strip() if _QUOTED.fullmatch(value) else value


def _absence(value: str) -> str:
    """Say that a setting is not there; nothing where it is."""
    if value in _PLACEHOLDERS:
        return "is still the one of .env.example"
    return "" if value else "is missing"


def _sentences(error: ValidationError, found: Mapping[str, str]) -> Iterator[str]:
    cures = {f.validation_alias: f.description for f in Settings.model_fields.values()}
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0])
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        what = _absence(found[name]) or message
        yield f"{name} {what}. {cures[name] or ''}".rstrip()
