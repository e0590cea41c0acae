"""The app with views that hand out access tokens, to look at them in tests."""

from flask import Flask, request

from app import create_app
from auth import auth0


def add_views(app: Flask) -> Flask:
    """Add the views."""

    @app.get("/token")
    async def token() -> str:
        audience, scope = request.args.get("audience"), request.args.get("scope")
        return await auth0.get_access_token(audience=audience, scope=scope)

    app.add_url_rule("/renewed", "renewed", auth0.refresh_user)
    return app


def create() -> Flask:
    """Build the app, for gunicorn."""
    return add_views(create_app())
