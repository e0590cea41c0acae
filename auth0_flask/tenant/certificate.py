"""The certificate of the TLS port, from a CA that lives as long as the tenant."""

from __future__ import annotations

import ssl
from pathlib import Path


def make(ca_file: Path) -> ssl.SSLContext:
    """Make a CA and a server certificate for loopback.

    Args:
        ca_file: Where the CA's certificate goes, as PEM; its key is not kept.

    Returns:
        The context for the server's side of a connection.

    Raises:
        ModuleNotFoundError: If trustme is not installed; the message says how to.
    """
    try:
        import trustme
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The tenant needs the package trustme: "
            "pip install 'auth0-flask-login[testing]'",
            name=error.name,
        ) from error
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context
