"""An app that keeps Flask-Login's ``current_user``, beside a login by Auth0."""

from flask import Flask, abort, render_template_string, request, session
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    login_required,
    logout_user,
)

import auth

app = Flask(__name__)
app.secret_key = "change me"
auth.init_app(app)
app.register_blueprint(auth.routes)
login_manager = LoginManager(app)
login_manager.session_protection = None  # it guards a session that is not used here


class User(UserMixin):
    def __init__(self, claims):
        self.id = claims["sub"]
        self.name = claims.get("name")


@login_manager.request_loader
def load_user(request):
    return User(auth.auth_user) if auth.auth_user else None


@login_manager.unauthorized_handler
@auth.login_required
def not_active():
    abort(403)  # somebody is signed in whose is_active is False


@app.before_request
def end_old_login():  # while its cookie is there, load_user is never asked
    if "remember_token" in request.cookies or "_user_id" in session:
        logout_user()


@app.get("/")
def home():
    return render_template_string(
        "{{ current_user.name if current_user.is_authenticated else 'nobody' }}"
    )


@app.get("/reports")
@login_required
async def reports():
    return f"Reports for {current_user.name}"
