"""Who is signed in."""

from functools import wraps

from flask import (
    current_app,
    flash,
    g,
    redirect,
    render_template,
    request,
    session,
    url_for,
)

from models import User, db, find


def init_app(app):
    app.before_request(load_user)
    app.add_url_rule("/login", view_func=login)
    app.add_url_rule("/login", view_func=log_in, methods=["POST"])
    app.add_url_rule("/logout", view_func=logout)


def load_user():
    g.user = find(name=session.get("username", ""))


def login_required(view):
    @wraps(view)
    def guarded(*args, **kwargs):
        if g.user is None:
            return redirect(url_for("login"))
        return current_app.ensure_sync(view)(*args, **kwargs)

    return guarded


def login():
    return render_template("login.html")


def log_in():
    name = request.form["username"]
    row = find(name=name) or User(name=name, email=request.form["email"])
    db().add(row)
    db().commit()
    session["username"] = name
    flash(f"Welcome, {name}!")
    return redirect(url_for("shop.home"))


def logout():
    session.pop("username", None)
    return redirect(url_for("shop.home"))
