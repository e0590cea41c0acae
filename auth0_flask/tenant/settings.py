"""What tests may want otherwise about the tenant."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from auth0_flask.tenant import urls


class Settings:
    """Settings to change at any time; ``reset`` undoes that.

    Attributes:
        clock_offset: Seconds added to the tenant's clock.
        access_token_lifetime: Seconds; ``expires_in`` of token responses.
        omit_scope: Whether token responses carry no ``scope``.
        token_response_extra: Members set in every token response, to make it
            odd; None removes one.
        allowed_callback_urls: Callbacks allowed besides loopback addresses.
        allowed_logout_urls: The same for where a logout may lead.
        connections: The connections that an app may ask for.
        audiences: The APIs that tokens may be for; any where it is empty.
        api_audience: The audience of the tenant's own API at ``/api/things``.
        require_pushed_authorization_requests: Whether requests have to be
            pushed (RFC 9126).
        rotate_refresh_tokens: Whether each is good once; otherwise they stay.
        require_mfa: Whether a refresh is refused for want of a second factor.
        backchannel_answers: The status of each answer to a logout token; 0
            where there was none.
    """

    clock_offset: float
    access_token_lifetime: int
    omit_scope: bool
    token_response_extra: dict[str, Any]
    allowed_callback_urls: set[str]
    allowed_logout_urls: set[str]
    connections: set[str]
    audiences: set[str]
    api_audience: str
    require_pushed_authorization_requests: bool
    rotate_refresh_tokens: bool
    require_mfa: bool
    backchannel_answers: list[int]

    def reset(self) -> None:
        """Go back to what is usual."""
        self.clock_offset = 0.0
        self._reset_clients()
        self._reset_tokens()
        self._reset_logout()

    @property
    def client_public_key(self) -> str | None:
        """The app's public RSA key (PEM), for private_key_jwt (RFC 7523).

        While there is one, the app's secret is refused; None, as at first, has
        the secret be the only way.

        Raises:
            ValueError: If what it is set to is not such a key.
        """
        return self._client_public_key

    @client_public_key.setter
    def client_public_key(self, pem: str | None) -> None:
        if pem is not None and not isinstance(
            load_pem_public_key(pem.encode()), RSAPublicKey
        ):
            raise ValueError("RS256 needs an RSA key.")
        self._client_public_key = pem

    @property
    def backchannel_logout_uri(self) -> str | None:
        """Where logout tokens go (OpenID Connect Back-Channel Logout 1.0).

        None, as at first, has none sent.

        Raises:
            ValueError: If it is set to an address that is not plain http on
                loopback.
        """
        return self._backchannel_logout_uri

    @backchannel_logout_uri.setter
    def backchannel_logout_uri(self, url: str | None) -> None:
        if url is not None and not (
            url.startswith("http://") and urls.is_loopback(url)
        ):
            raise ValueError("Logout tokens go to http addresses on loopback only.")
        self._backchannel_logout_uri = url

    def _reset_clients(self) -> None:
        self.allowed_callback_urls = set()
        self.allowed_logout_urls = set()
        self.connections = {
            "Username-Password-Authentication",
            "google-oauth2",
            "github",
        }
        self.require_pushed_authorization_requests = False
        self.client_public_key = None

    def _reset_tokens(self) -> None:
        self.access_token_lifetime = 86400
        self.omit_scope = False
        self.token_response_extra = {}
        self.audiences = set()
        self.api_audience = "https://api.tenant.example/"
        self.rotate_refresh_tokens = True
        self.require_mfa = False

    def _reset_logout(self) -> None:
        self.backchannel_logout_uri = None
        self.backchannel_answers = []
