"""The SDK's client, without what Authlib warns of at every start."""

import warnings

with warnings.catch_warnings():
    from authlib.deprecate import AuthlibDeprecationWarning

    # it means the SDK, which has yet to move to httpx2; a user can do nothing about it
    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    from auth0_server_python.auth_server.server_client import ServerClient

__all__ = ["ServerClient"]
