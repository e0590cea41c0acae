"""What somebody has ordered, in async views."""

from flask import Blueprint, abort, g, render_template

from models import Order, db
from users import login_required

orders = Blueprint("orders", __name__, url_prefix="/orders")


@orders.get("/")
@login_required
async def index():
    return render_template("orders.html", orders=g.user.orders)


@orders.get("/<int:number>")
@login_required
async def one(number):
    order = db().get(Order, number) or abort(404)
    if order.user_id != g.user.id:
        abort(403)
    return render_template("orders.html", orders=[order])
