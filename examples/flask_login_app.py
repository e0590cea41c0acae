"""An app that stays on Flask-Login's ``current_user``.

Who is signed in is read from our session at every request. ``login_user`` is never
called: it would begin a second session, which would outlive ours.
"""

from flask import Flask, abort, redirect, render_template_string, request
from flask_login import LoginManager, UserMixin, current_user, login_required

import auth
from auth import auth0

app = Flask(__name__)
auth.init_app(app)
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
    abort(403)  # whoever is signed in, but whose is_active is False


@app.get("/")
def home():
    return render_template_string(
        "{{ current_user.name if current_user.is_authenticated else 'nobody' }}"
    )


@app.get("/reports")
@login_required
async def reports():
    return f"Reports for {current_user.name}"


@app.get("/login")
async def login():
    try:
        return redirect(await auth0.start_interactive_login(auth.login_options()))
    except Exception as error:
        raise auth.explain(error) from error


@app.get("/callback")
async def callback():
    try:
        result = await auth0.complete_interactive_login(request.url)
    except Exception as error:
        return auth.failed_callback(error)
    return redirect(auth.return_to(result.get("app_state")))


@app.get("/logout")
async def logout():
    return redirect(await auth0.logout(auth.logout_options()))
