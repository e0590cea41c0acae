"""Settings: what is understood, and how each mistake is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dotenv import dotenv_values
from joserfc.jwk import RSAKey

from auth0_flask import Settings, SetupError
from auth0_flask.settings import misspelled_settings

GOOD = {
    "AUTH0_DOMAIN": "tenant.eu.auth0.com",
    "AUTH0_CLIENT_ID": "client",
    "AUTH0_CLIENT_SECRET": "hush-hush",
    "AUTH0_SECRET": "s" * 32,
    "AUTH0_REDIRECT_URI": "https://app.example.com/callback",
}


def settings_with(**given: str) -> Settings:
    """Return the settings of an environment that is good but for these."""
    return Settings.from_environment({**GOOD, **given})


def test_five_settings_are_enough() -> None:
    settings = settings_with()
    assert settings.problems == ()
    assert settings.scope == "openid profile email"
    assert settings.origin == "https://app.example.com"


MUNICH = "https://xn--mnchen-3ya.example"
KEY = RSAKey.generate_key(2048).as_pem(private=True).decode().strip()


@pytest.mark.parametrize(
    ("name", "given", "understood"),
    [
        ("domain", "https://tenant.eu.auth0.com/", "tenant.eu.auth0.com"),
        ("domain", " Tenant.EU.auth0.com ", "tenant.eu.auth0.com"),
        ("domain", "your-health.eu.auth0.com", "your-health.eu.auth0.com"),
        ("domain", "Login.München.example", f"login.{MUNICH[8:]}"),
        ("redirect_uri", "http://LocalHost:5000/Cb", "http://localhost:5000/Cb"),
        ("redirect_uri", "https://a.example:443/cb", "https://a.example:443/cb"),
        ("redirect_uri", "https://MÜNCHEN.example:444/cb", f"{MUNICH}:444/cb"),
        ("client_secret", "\"half'", "\"half'"),
        # as docker run --env-file leaves quotes there, and some put a PEM into one line
        ("client_secret", "'whole'", "whole"),
        ("scope", '"openid email"', "openid email"),
        ("client_assertion_signing_key", KEY, KEY),
        ("client_assertion_signing_key", KEY.replace("\n", "\\n"), KEY),
    ],
)
def test_a_value_is_understood_in_every_usual_spelling(
    name: str, given: str, understood: str
) -> None:
    settings = settings_with(**{f"AUTH0_{name.upper()}": given})
    assert settings.problems == ()
    assert getattr(settings, name) == understood
    assert name != "redirect_uri" or settings.origin == understood.rpartition("/")[0]


def test_what_is_missing_is_told_all_at_once_and_so_are_placeholders() -> None:
    problems = Settings.from_environment({}).problems
    assert {problem.partition(" ")[0] for problem in problems} == GOOD.keys()
    assert len(problems) == 5

    example = {name: v or "" for name, v in dotenv_values(".env.example").items()}
    problems = Settings.from_environment(example).problems
    assert example.keys() == GOOD.keys()
    assert len(problems) == 4  # the address of the callback is good as it is
    assert all("still the one of .env.example" in problem for problem in problems)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AUTH0_DOMAIN", "http://tenant.auth0.com", "is not a domain such as"),
        ("AUTH0_DOMAIN", "tenant.auth0.com/authorize", "is not a domain such as"),
        ("AUTH0_DOMAIN", "tenant.auth0.com:65536", "is not a domain such as"),
        ("AUTH0_DOMAIN", "me@tenant.auth0.com", "is not a domain such as"),
        ("AUTH0_CLIENT_ASSERTION_SIGNING_KEY", "-----BEGIN", "is not a private RSA"),
        ("AUTH0_SESSION_MAX_SECONDS", "999999999999", "less than or equal to"),
        ("AUTH0_SECRET", "s" * 32 + " short-one", "at least 32 bytes"),
        ("AUTH0_REDIRECT_URI", "http://app.example.com/cb", "must begin with https"),
        ("AUTH0_REDIRECT_URI", "http://evillocalhost/cb", "must begin with https"),
        ("AUTH0_REDIRECT_URI", "https://app.example.com/#x", "is not an address"),
        ("AUTH0_REDIRECT_URI", "http://localhost:65536/cb", "is not an address"),
        ("AUTH0_REDIS_URL", "my.redis.example:6379", "is not an address such as"),
        ("AUTH0_ALLOWED_ORIGINS", "foo", "is not a list of origins such as"),
        ("AUTH0_SCOPE", "profile email", "must contain openid"),
        ("AUTH0_SESSION_IDLE_SECONDS", "1d", "is not a whole number such as 86400"),
        ("AUTH0_KEEP_ID_TOKEN", "ja", "is neither true nor false"),
        ("AUTH0_SESSION_MAX_SECONDS", "0", "greater than 0"),
    ],
)
def test_a_mistake_is_told_with_its_variable_and_never_its_value(
    name: str, value: str, said: str
) -> None:
    (problem,) = problems = settings_with(**{name: value}).problems
    assert problem.startswith(f"{name} ")
    assert said in problem
    assert value == "0" or value not in SetupError(problems).message


def test_settings_cannot_be_changed_and_show_no_secret() -> None:
    settings = settings_with(AUTH0_SECRET=f"{'n' * 32}  {'o' * 32}")
    assert settings.secrets == ("n" * 32, "o" * 32)
    assert not any(s in repr(settings) for s in ("hush-hush", *settings.secrets))
    with pytest.raises(ValueError, match="at least 32 bytes") as told:
        Settings.model_validate({**GOOD, "AUTH0_SECRET": "hush-hush"})
    assert "hush-hush" not in str(told.value)
    with pytest.raises(ValueError, match="frozen"):
        settings.domain = "evil.example.com"


DOTENV = "".join(f'{name}="{value}"\n' for name, value in GOOD.items())


@pytest.fixture
def dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``.env`` above the folder that is worked in, with a clean environment."""
    for name in [n for n in os.environ if n.startswith("AUTH0_")]:
        monkeypatch.delenv(name)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / ".env"


def test_a_dotenv_is_read_literally_and_not_into_the_environment_which_wins(
    dotenv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = f"{DOTENV}AUTH0_AUDIENCE=https://api.example\nAUTHO_SCOPE=x\nAUTHOR=x\n"
    dotenv.write_text(written.replace("hush-hush", "hush-${HOME}-hush"))
    monkeypatch.setenv("AUTH0_DOMAIN", "another.eu.auth0.com")
    monkeypatch.setenv("AUTH0_AUDIENCE", "")
    before = dict(os.environ)
    settings = Settings.from_environment()
    assert dict(os.environ) == before
    assert settings.problems == ()
    assert settings.client_secret == "hush-${HOME}-hush"
    assert settings.domain == "another.eu.auth0.com"
    assert settings.audience is None  # also where it is empty
    monkeypatch.setenv("AUTH0_MANAGEMENT_API_TOKEN", "x")
    assert misspelled_settings() == {"AUTHO_SCOPE": "AUTH0_SCOPE"}

    monkeypatch.setenv("PYTHON_DOTENV_DISABLED", "1")
    assert len(Settings.from_environment().problems) == 4


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_dotenv_that_cannot_be_read_is_told(dotenv: Path, encoding: str) -> None:
    dotenv.write_text(f"# für {encoding}\n{DOTENV}", encoding)
    problems = Settings.from_environment().problems
    assert any(".env is not in UTF-8" in problem for problem in problems)
    assert GOOD["AUTH0_CLIENT_SECRET"] not in SetupError(problems).message

    dotenv.unlink()
    dotenv.symlink_to("/proc/self/mem")  # which nobody can read from its beginning
    problems = Settings.from_environment().problems
    assert any(".env cannot be read" in problem for problem in problems)
