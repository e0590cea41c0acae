"""Who is signed in."""

from flask import Blueprint, g, redirect, request, session, url_for

from models import User, db, find

users = Blueprint("users", __name__)


def init_app(app):
    app.before_request(load_user)
    app.register_blueprint(users)


def load_user():
    g.user = find(name=session.get("name", ""))


def login_required():
    return None if g.user else redirect(url_for("shop.home"))


@users.post("/login")
def login():
    session["name"] = name = request.form["name"]
    db().add(find(name=name) or User(name=name, email=request.form["email"]))
    db().commit()
    return redirect(url_for("shop.home"))


@users.get("/logout")
def logout():
    del session["name"]
    return redirect(url_for("shop.home"))
