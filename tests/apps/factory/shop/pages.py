"""The pages, guarded in both ways: by the copied file, and by Flask-Login."""
# mypy: ignore-errors

from flask import Blueprint, redirect, render_template_string, request, url_for
from flask_login import current_user, login_required

from . import models, sso

REPORTS = """
Reports for {{ current_user.sub }}:
{% for order in current_user.orders %}<li>{{ order.goods }}</li>{% endfor %}
<form method="post" action="{{ url_for('pages.order') }}">
<input type="hidden" name="csrf_token" value="{{ csrf_token() }}">
<input name="goods"> <button>Order</button></form>
<form method="post" action="{{ url_for('auth0.logout_everywhere') }}">
<button>Sign out on all devices</button></form>
<a href="{{ url_for('auth0.logout') }}">Sign out</a>
"""

pages = Blueprint("pages", __name__)


@pages.get("/")
def home():
    return "Welcome Guest" if current_user.is_anonymous else "Welcome back"


@pages.get("/reports")
@login_required
async def reports():
    return render_template_string(REPORTS)


@pages.post("/orders")
@sso.login_required
def order():
    models.add(models.Order(user_id=current_user.id, goods=request.form["goods"]))
    return redirect(url_for("pages.reports"))
