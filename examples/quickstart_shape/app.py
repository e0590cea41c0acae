"""An app in the shape of Auth0's quickstart for Flask."""

from flask import Flask, render_template_string

import auth
from auth_routes import auth_routes

app = Flask(__name__)
app.register_blueprint(auth_routes)
auth.init_app(
    app,
    login="auth_routes.login",
    callback="auth_routes.callback",
    logout="auth_routes.logout",
)


@app.get("/")
def home():
    return render_template_string(
        "{% if auth_user %}Hello, {{ auth_user.name }}!{% else %}Sign in.{% endif %}"
    )


@app.get("/profile")
@auth.login_required
def profile():
    return dict(auth.auth_user)
