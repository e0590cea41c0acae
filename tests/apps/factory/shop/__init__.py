"""A factory with blueprints, Flask-Login, CSRF protection and SQLAlchemy."""
# mypy: ignore-errors

from flask import Flask
from flask_login import LoginManager
from flask_wtf import CSRFProtect

from . import models, sso
from .pages import pages


def create_app(config=None):
    app = Flask(__name__)
    app.config.from_mapping(SECRET_KEY="change me", DATABASE="sqlite:///shop.db")
    app.config.from_prefixed_env()
    app.config.from_mapping(config or {})
    models.init_app(app)
    csrf = CSRFProtect(app)
    sso.init_app(app)
    app.register_blueprint(sso.routes, url_prefix="/account")
    csrf.exempt(sso.routes)
    login_manager = LoginManager(app)
    login_manager.session_protection = None
    login_manager.request_loader(load_user)
    login_manager.unauthorized_handler(sso.login_required(lambda: ("", 403)))
    app.register_blueprint(pages)
    return app


def load_user(request):
    return models.find(sub=sso.auth_user["sub"]) if sso.auth_user else None


@sso.user_logged_in.connect
def keep_user(app, user):
    if models.find(sub=user["sub"]) is None:
        models.add(models.User(sub=user["sub"]))
