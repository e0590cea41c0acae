"""The app with views that hand out access tokens, to look at them in tests."""

import os

from flask import Flask, Response, jsonify, request

import auth
from app import create_app
from auth import auth0


def add_views(app: Flask) -> Flask:
    """Add the views."""

    @app.get("/token")
    async def token() -> str:
        audience, scope = request.args.get("audience"), request.args.get("scope")
        return await auth0.get_access_token(audience=audience, scope=scope)

    @app.get("/token-or-why")
    async def token_or_why() -> tuple[Response, int]:
        try:
            return jsonify(token=await auth0.get_access_token()), 200
        except auth.LoginError:
            raise
        except Exception as error:
            return jsonify(kind=type(error).__name__), 418

    @app.get("/token-of/<connection>")
    async def token_of(connection: str) -> str:
        return await auth0.get_access_token_for_connection({"connection": connection})

    @app.get("/renewed")
    async def renewed() -> Response:
        return jsonify(await auth0.refresh_user())

    @app.get("/worker")
    def worker() -> Response:
        return jsonify(pid=os.getpid(), user=auth.auth_user)

    return app


def create() -> Flask:
    """Build the app, for gunicorn."""
    return add_views(create_app())
