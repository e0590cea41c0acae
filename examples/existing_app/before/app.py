"""A small shop: its factory."""

from flask import Flask, render_template
from flask_wtf import CSRFProtect

import models
import users
from orders import orders
from shop import shop


def create_app():
    app = Flask(__name__)
    app.config.from_mapping(SECRET_KEY="change me", DATABASE="sqlite:///shop.db")
    app.config.from_prefixed_env()
    CSRFProtect(app)
    models.init_app(app)
    users.init_app(app)
    app.register_blueprint(shop)
    app.register_blueprint(orders)
    for code in (403, 404, 500):
        app.register_error_handler(code, error_page)
    return app


def error_page(error):
    return render_template("error.html", error=error), error.code
