"""Who is signed in."""

from flask import g
from sqlalchemy.exc import IntegrityError

import auth
from auth import login_required as login_required
from models import User, db, find


def init_app(app):
    app.before_request(load_user)
    auth.init_app(app)
    app.register_blueprint(auth.routes, name="users")


def load_user():
    g.user = find(sub=auth.auth_user.get("sub", ""))


@auth.user_logged_in.connect
def keep_user(app, user):
    email = user.get("email") if user.get("email_verified") else None
    row = find(sub=user["sub"]) or (email and find(sub=None, email=email)) or User()
    row.sub, row.email, row.name = user["sub"], email, row.name or email
    db().add(row)
    try:
        db().commit()
    except IntegrityError:  # no verified address, or one that has an account here
        db().rollback()
        raise auth.LoginRefused("Confirm your email, or sign in as before.") from None
