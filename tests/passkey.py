"""A software authenticator: what ``navigator.credentials`` gives a page."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from typing import Any

from auth0_server_python.auth_types import PasskeyAuthResponse
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Passkey:
    """One passkey for the tenant; it answers the SDK's ``authn_params_public_key``."""

    def __init__(self) -> None:
        self.id = text(os.urandom(16))
        self.key = ec.generate_private_key(ec.SECP256R1())

    def create(self, options: Any) -> PasskeyAuthResponse:
        """Answer a sign-up or an enrollment."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        public = self.key.public_key().public_bytes(serialization.Encoding.DER, form)
        return self._answer("create", options, publicKey=text(public))

    def get(self, options: Any) -> PasskeyAuthResponse:
        """Answer a login."""
        answer = self._answer("get", options)
        data = hashlib.sha256(options.rp_id.encode()).digest() + b"\x05\x00\x00\x00\x01"
        said = base64.urlsafe_b64decode(answer.response["clientDataJSON"] + "==")
        signed = data + hashlib.sha256(said).digest()
        answer.response["authenticatorData"] = text(data)
        answer.response["signature"] = text(self.key.sign(signed, ec.ECDSA(SHA256())))
        return answer

    def _answer(self, kind: str, options: Any, **more: str) -> PasskeyAuthResponse:
        said = {"type": f"webauthn.{kind}", "challenge": options.challenge}
        client_data = json.dumps({**said, "origin": "http://localhost:1"}).encode()
        response = {"clientDataJSON": text(client_data), **more}
        whole = {"id": self.id, "rawId": self.id, "type": "public-key"}
        return PasskeyAuthResponse.model_validate({**whole, "response": response})
