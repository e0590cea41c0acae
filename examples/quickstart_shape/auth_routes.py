"""Login, callback and logout in sync views.

The client's methods are coroutines; ``ensure_sync`` makes functions of them.
"""

from flask import Blueprint, current_app, redirect, request

import auth
from auth import auth0

auth_routes = Blueprint("auth_routes", __name__, url_prefix="/auth")


@auth_routes.get("/login")
def login():
    start = current_app.ensure_sync(auth0.start_interactive_login)
    try:
        return redirect(start(auth.login_options()))
    except Exception as error:
        raise auth.explain(error) from error


@auth_routes.get("/callback")
def callback():
    complete = current_app.ensure_sync(auth0.complete_interactive_login)
    try:
        result = complete(request.url)
    except Exception as error:
        return auth.failed_callback(error)
    return redirect(auth.return_to(result.get("app_state")))


@auth_routes.get("/logout")
def logout():
    return redirect(current_app.ensure_sync(auth0.logout)(auth.logout_options()))
