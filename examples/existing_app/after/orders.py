"""Checking out, and what somebody has ordered; in sync views and async ones."""

from flask import Blueprint, abort, g, redirect, render_template, session, url_for

from models import Order, db
from users import login_required

orders = Blueprint("orders", __name__)
orders.before_request(login_required)


@orders.get("/checkout")
def checkout():
    return render_template("checkout.html")


@orders.post("/checkout")
def place():
    db().add(Order(user_id=g.user.id, goods=", ".join(session.pop("cart", []))))
    db().commit()
    return redirect(url_for("orders.index"))


@orders.get("/orders/")
async def index():
    return render_template("orders.html", orders=g.user.orders)


@orders.get("/orders/<int:number>")
async def one(number):
    order = db().get(Order, number) or abort(404)
    if order.user_id != g.user.id:
        abort(403)
    return render_template("orders.html", orders=[order])
