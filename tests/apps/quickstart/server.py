"""The shape of Auth0's quickstart: one file, a secret key, who is there as JSON."""
# mypy: ignore-errors

import json
from os import environ as env

from flask import Flask, render_template_string

import auth

HOME = """
{% if session %}<h1>Welcome {{ session.name }}!</h1>
<p><a href="/logout">Sign out</a></p><pre>{{ pretty }}</pre>
{% else %}<h1>Welcome Guest</h1><p><a href="/login">Sign in</a></p>{% endif %}
"""

app = Flask(__name__)
app.secret_key = env["APP_SECRET_KEY"]
auth.init_app(app)
app.register_blueprint(auth.routes)


@app.route("/")
def home():
    user = auth.auth_user
    pretty = json.dumps(dict(user), indent=4)
    return render_template_string(HOME, session=user, pretty=pretty)


@app.route("/reports")
@auth.login_required
def reports():
    return f"Reports for {auth.auth_user['sub']} <a href='/logout'>Sign out</a>"
