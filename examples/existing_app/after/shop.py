"""The shelf and the cart, which is kept in the session."""

from flask import Blueprint, abort, redirect, render_template, request, session, url_for

GOODS = {"tea": 4, "cup": 12, "kettle": 30}
shop = Blueprint("shop", __name__)


@shop.get("/")
def home():
    return render_template("home.html", goods=GOODS)


@shop.post("/cart")
def add_to_cart():
    if request.form["goods"] not in GOODS:
        abort(404)
    session["cart"] = [*session.get("cart", []), request.form["goods"]]
    return redirect(url_for("shop.home"))
