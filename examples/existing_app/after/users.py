"""Who is signed in."""

from flask import (
    g,
    redirect,
    request,
)

import auth
from auth import login_required as login_required
from models import User, db, find


def init_app(app):
    auth.init_app(app)
    app.before_request(load_user)
    app.add_url_rule("/login", view_func=login)
    app.add_url_rule("/callback", view_func=callback)
    app.add_url_rule("/logout", view_func=logout)


def load_user():
    g.user = find(sub=auth.auth_user.get("sub", ""))


async def login():
    try:
        return redirect(await auth.auth0.start_interactive_login(auth.login_options()))
    except Exception as error:
        raise auth.explain(error) from error


async def callback():
    try:
        result = await auth.auth0.complete_interactive_login(request.url)
    except Exception as error:
        return auth.failed_callback(error)
    return redirect(auth.return_to(result.get("app_state")))


@auth.user_logged_in.connect
def keep_user(app, user):
    email = user.get("email") if user.get("email_verified") else None
    row = find(sub=user["sub"]) or (email and find(sub=None, email=email)) or User()
    row.sub, row.email, row.name = user["sub"], user.get("email"), user.get("name")
    db().add(row)
    db().commit()


async def logout():
    return redirect(await auth.auth0.logout(auth.logout_options()))
