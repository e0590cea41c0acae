"""An app in the shape of Auth0's quickstart for Flask."""

from os import environ

from flask import Flask, render_template_string, session

import auth

HOME = "{% if user %}Hello, {{ user.name }}!{% else %}Sign in.{% endif %}"

app = Flask(__name__)
app.secret_key = environ["APP_SECRET_KEY"]
auth.init_app(app)
app.register_blueprint(auth.routes)


@app.before_request
def forget_old_login():  # its tokens would stay in the cookie, for all to read
    for name in [*session]:
        if name == "user" or name.startswith("_state_auth0_"):
            del session[name]


@app.get("/")
def home():
    return render_template_string(HOME, user=auth.auth_user)


@app.get("/profile")
@auth.login_required
def profile():
    return dict(auth.auth_user)
