"""Settings: what is understood, and how each mistake is told."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from login.settings import Settings, SetupError

GOOD = {
    "AUTH0_DOMAIN": "tenant.eu.auth0.com",
    "AUTH0_CLIENT_ID": "client",
    "AUTH0_CLIENT_SECRET": "hush-hush",
    "AUTH0_SECRET": "s" * 32,
    "AUTH0_REDIRECT_URI": "https://app.example.com/callback",
}


def test_five_settings_are_enough() -> None:
    settings = Settings.from_environment(GOOD)

    assert settings.problems == ()
    assert settings.scope == "openid profile email"
    assert settings.origin == "https://app.example.com"


@pytest.mark.parametrize(
    "given",
    [
        "tenant.eu.auth0.com",
        "https://tenant.eu.auth0.com/",
        "https://tenant.eu.auth0.com",
        " Tenant.EU.auth0.com ",
    ],
)
def test_a_domain_is_understood_in_every_usual_spelling(given: str) -> None:
    settings = Settings.from_environment({**GOOD, "AUTH0_DOMAIN": given})

    assert settings.domain == "tenant.eu.auth0.com"


def test_a_domain_that_looks_like_the_example_is_not_taken_for_it() -> None:
    given = {**GOOD, "AUTH0_DOMAIN": "your-health.eu.auth0.com"}

    assert Settings.from_environment(given).problems == ()


def test_the_host_of_the_callback_is_compared_without_regard_to_case() -> None:
    given = {**GOOD, "AUTH0_REDIRECT_URI": "http://LocalHost:5000/Callback"}

    settings = Settings.from_environment(given)

    assert settings.redirect_uri == "http://localhost:5000/Callback"


def test_an_empty_environment_is_told_all_at_once() -> None:
    problems = Settings.from_environment({}).problems

    assert len(problems) == 5
    for name in GOOD:
        assert any(problem.startswith(name) for problem in problems), name


def test_placeholders_of_the_example_count_as_missing() -> None:
    with open(".env.example") as file:
        lines = [line.partition("=") for line in file if not line.startswith("#")]
    example = {name: value.strip() for name, _, value in lines if name.strip()}

    problems = Settings.from_environment(example).problems

    assert set(example) == set(GOOD)
    assert len(problems) == 4  # the address of the callback is good as it is
    assert all("is still the one of .env.example" in problem for problem in problems)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AUTH0_DOMAIN", "http://tenant.auth0.com", "is not a domain such as"),
        ("AUTH0_DOMAIN", "tenant.auth0.com/authorize", "is not a domain such as"),
        ("AUTH0_DOMAIN", "tenant.auth0.com:port", "is not a domain such as"),
        ("AUTH0_DOMAIN", "me@tenant.auth0.com", "is not a domain such as"),
        ("AUTH0_DOMAIN", "foo bar;x", "is not a domain such as"),
        ("AUTH0_CLIENT_ASSERTION_SIGNING_KEY", "-----BEGIN", "is not a private RSA"),
        ("AUTH0_SESSION_MAX_SECONDS", "999999999999", "less than or equal to"),
        ("AUTH0_SECRET", "short", "at least 32 bytes"),
        ("AUTH0_SECRET", "s" * 32 + " short", "at least 32 bytes"),
        ("AUTH0_REDIRECT_URI", "http://app.example.com/cb", "must begin with https"),
        ("AUTH0_REDIRECT_URI", "app.example.com/cb", "is not an address"),
        ("AUTH0_REDIRECT_URI", "https://app.example.com/#x", "is not an address"),
        ("AUTH0_REDIS_URL", "my.redis.example:6379", "is not an address such as"),
        ("AUTH0_SCOPE", "profile email", "must contain openid"),
        ("AUTH0_SESSION_IDLE_SECONDS", "a day", "valid integer"),
        ("AUTH0_SESSION_MAX_SECONDS", "0", "greater than 0"),
        ("AUTH0_PUSHED_AUTHORIZATION_REQUESTS", "perhaps", "valid boolean"),
    ],
)
def test_a_mistake_is_told_with_its_variable_and_never_its_value(
    name: str, value: str, said: str
) -> None:
    problems = Settings.from_environment({**GOOD, name: value}).problems

    assert len(problems) == 1
    assert problems[0].startswith(f"{name} ")
    assert said in problems[0]
    assert value == "0" or value not in SetupError(problems).message


def test_a_private_key_stands_in_for_the_client_secret() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    pem = key.decode()
    for text in (pem, pem.replace("\n", "\\n")):
        given = {**GOOD, "AUTH0_CLIENT_ASSERTION_SIGNING_KEY": text}
        del given["AUTH0_CLIENT_SECRET"]
        settings = Settings.from_environment(given)

        assert settings.problems == ()
        assert (settings.client_assertion_signing_key or "").strip() == pem.strip()


def test_no_secret_is_in_the_repr() -> None:
    shown = repr(Settings.from_environment(GOOD))

    assert "hush-hush" not in shown
    assert "s" * 32 not in shown


def test_settings_cannot_be_changed() -> None:
    settings = Settings.from_environment(GOOD)

    with pytest.raises(ValueError, match="frozen"):
        settings.domain = "evil.example.com"


def test_several_secrets_are_several() -> None:
    given = {**GOOD, "AUTH0_SECRET": f"{'n' * 32}  {'o' * 32}"}

    assert Settings.from_environment(given).secrets == ("n" * 32, "o" * 32)
