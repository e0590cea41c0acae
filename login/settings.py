"""The settings: read from the environment, checked all at once, frozen."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from secrets import token_hex
from typing import Annotated, Self
from urllib.parse import SplitResult, urlsplit

import click
from auth0_server_python.auth_schemes.client_assertion import (
    validate_client_assertion_key,
)
from auth0_server_python.error import ConfigurationError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_NEW_KEY = "python3 -c 'import secrets; print(secrets.token_hex(32))'"
_DASHBOARD = (
    "You find it at https://manage.auth0.com, Applications, "
    "your Regular Web Application, Settings."
)
#: As they stand in .env.example.
_PLACEHOLDERS = {
    "your-tenant.eu.auth0.com",
    "your-client-id",
    "your-client-secret",
    "your-secret-of-32-bytes-or-more",
}
_TEN_YEARS = 315_360_000
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?")


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
            "(start with: cp .env.example .env)."
        )


def check_certificates() -> None:
    """See that ``SSL_CERT_FILE`` can be read, where it is set.

    Raises:
        SetupError: It cannot; httpx would say so by a traceback.
    """
    if path := os.environ.get("SSL_CERT_FILE"):
        try:
            ssl.create_default_context(cafile=path)
        except OSError:
            cure = "Name a file of certificates in PEM, or unset it."
            raise SetupError((f"SSL_CERT_FILE cannot be read. {cure}",)) from None


def _split(value: str, wrong: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        _ = parts.port  # reading it is what checks it
    except ValueError:
        raise ValueError(wrong) from None
    if not parts.hostname or "@" in parts.netloc:
        raise ValueError(wrong)
    return parts


def _bare_domain(value: str) -> str:
    wrong = "is not a domain such as tenant.eu.auth0.com, without a path"
    parts = _split(value if "://" in value else f"https://{value}", wrong)
    if parts.scheme != "https" or parts.path.strip("/") or parts.query:
        raise ValueError(wrong)
    domain = parts.netloc.lower()
    if not _DOMAIN.fullmatch(domain):
        raise ValueError(wrong)
    return domain


def _callback(value: str) -> str:
    wrong = "is not an address such as http://localhost:5000/callback"
    parts = _split(value, wrong)
    if parts.scheme not in {"http", "https"} or parts.fragment:
        raise ValueError(wrong)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK_NAMES:
        raise ValueError("must begin with https:// anywhere but on localhost")
    return parts._replace(netloc=parts.netloc.lower()).geturl()


def _several(value: object) -> object:
    return tuple(value.split()) if isinstance(value, str) else value


def _long_enough(secrets: tuple[str, ...]) -> tuple[str, ...]:
    if any(len(secret.encode()) < 32 for secret in secrets):
        raise ValueError("needs at least 32 bytes (each, where there are several)")
    return secrets


def _private_key(value: str | None) -> str | None:
    if value is None:
        return None
    key = value.replace("\\n", "\n")  # as some put a PEM into one line
    try:
        validate_client_assertion_key(key, "RS256")
    except ConfigurationError:
        raise ValueError("is not a private RSA key in PEM form (PKCS#8)") from None
    return key


def _redis(value: str | None) -> str | None:
    if value and not value.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("is not an address such as redis://localhost:6379/0")
    return value


def _with_openid(value: str) -> str:
    if "openid" not in value.split():
        raise ValueError("must contain openid, else nobody is told who signs in")
    return value


class Settings(BaseModel):
    """Everything that can be set, each under its environment variable's name.

    Frozen; its ``repr`` shows no secret.
    `problems` is empty where all is well; otherwise it says what is wrong, and the
    other values are those of `for_tests`.
    """

    model_config = ConfigDict(
        frozen=True,
        hide_input_in_errors=True,
        validate_by_name=True,
        validate_by_alias=True,
    )

    domain: Annotated[str, AfterValidator(_bare_domain)] = Field(
        validation_alias="AUTH0_DOMAIN", description=_DASHBOARD
    )
    client_id: str = Field(validation_alias="AUTH0_CLIENT_ID", description=_DASHBOARD)
    client_secret: str | None = Field(
        default=None, validation_alias="AUTH0_CLIENT_SECRET", repr=False
    )
    client_assertion_signing_key: Annotated[
        str | None, AfterValidator(_private_key)
    ] = Field(
        default=None, validation_alias="AUTH0_CLIENT_ASSERTION_SIGNING_KEY", repr=False
    )
    secrets: Annotated[
        tuple[str, ...], BeforeValidator(_several), AfterValidator(_long_enough)
    ] = Field(
        validation_alias="AUTH0_SECRET",
        repr=False,
        description=f"Make one with: {_NEW_KEY}",
    )
    redirect_uri: Annotated[str, AfterValidator(_callback)] = Field(
        validation_alias="AUTH0_REDIRECT_URI",
        description="It is the address of your callback route, the same as in "
        "Allowed Callback URLs; http://localhost:5000/callback for a start.",
    )
    scope: Annotated[str, AfterValidator(_with_openid)] = Field(
        default="openid profile email", validation_alias="AUTH0_SCOPE"
    )
    audience: str | None = Field(default=None, validation_alias="AUTH0_AUDIENCE")
    organization: str | None = Field(
        default=None, validation_alias="AUTH0_ORGANIZATION"
    )
    pushed_authorization_requests: bool = Field(
        default=False, validation_alias="AUTH0_PUSHED_AUTHORIZATION_REQUESTS"
    )
    connections: Annotated[tuple[str, ...], BeforeValidator(_several)] = Field(
        default=(), validation_alias="AUTH0_CONNECTIONS"
    )
    session_idle_seconds: int = Field(
        default=86_400,
        gt=0,
        le=_TEN_YEARS,
        validation_alias="AUTH0_SESSION_IDLE_SECONDS",
    )
    session_max_seconds: int = Field(
        default=604_800,
        gt=0,
        le=_TEN_YEARS,
        validation_alias="AUTH0_SESSION_MAX_SECONDS",
    )
    revocations_path: str | None = Field(
        default=None, validation_alias="AUTH0_REVOCATIONS_PATH"
    )
    redis_url: Annotated[str | None, AfterValidator(_redis)] = Field(
        default=None, repr=False, validation_alias="AUTH0_REDIS_URL"
    )
    problems: tuple[str, ...] = Field(default=(), validation_alias="")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings; never raise.

        Args:
            environment: Read instead of ``os.environ``, into which ``.env`` is
                loaded first where python-dotenv is installed.

        Returns:
            The settings, or those of `for_tests` with `problems`.
        """
        if environment is None:
            _load_dotenv()
            environment = os.environ
        names = [str(field.validation_alias) for field in cls.model_fields.values()]
        found = {name: environment.get(name, "").strip() for name in names}
        given = {name: value for name, value in found.items() if _is_set(value)}
        problems = _without_credential(found)
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            problems = _sentences(error, found) + problems
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

    @property
    def callback(self) -> SplitResult:
        """`redirect_uri`, split."""
        return urlsplit(self.redirect_uri)

    @property
    def origin(self) -> str:
        """Scheme, host and port that browsers reach the app at."""
        return f"{self.callback.scheme}://{self.callback.netloc}"


def _load_dotenv() -> None:
    try:
        from dotenv import find_dotenv, load_dotenv
    except ImportError:
        return
    load_dotenv(find_dotenv(usecwd=True))


def _is_set(value: str) -> bool:
    return bool(value) and value not in _PLACEHOLDERS


def _sentences(error: ValidationError, found: Mapping[str, str]) -> tuple[str, ...]:
    cures = {f.validation_alias: f.description for f in Settings.model_fields.values()}
    sentences = []
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0])
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        what = message if _is_set(found[name]) else _absence(found[name])
        sentences.append(f"{name} {what}. {cures[name] or ''}".rstrip())
    return tuple(sentences)


def _absence(value: str) -> str:
    return "is still the one of .env.example" if value else "is missing"


def _without_credential(found: Mapping[str, str]) -> tuple[str, ...]:
    names = ("AUTH0_CLIENT_SECRET", "AUTH0_CLIENT_ASSERTION_SIGNING_KEY")
    if any(_is_set(found[name]) for name in names):
        return ()
    what = _absence(found[names[0]])
    return (f"{names[0]} (or {names[1]}) {what}. {_DASHBOARD}",)
