"""An app in the shape of Auth0's quickstart for Flask."""

from os import environ
from urllib.parse import urlencode

from authlib.integrations.flask_client import OAuth
from flask import Flask, redirect, render_template_string, session, url_for

HOME = "{% if user %}Hello, {{ user.name }}!{% else %}Sign in.{% endif %}"

app = Flask(__name__)
app.secret_key = environ["APP_SECRET_KEY"]
DOMAIN = environ["AUTH0_DOMAIN"]
oauth = OAuth(app)
oauth.register(
    "auth0",
    client_id=environ["AUTH0_CLIENT_ID"],
    client_secret=environ["AUTH0_CLIENT_SECRET"],
    client_kwargs={"scope": "openid profile email", "code_challenge_method": "S256"},
    server_metadata_url=f"https://{DOMAIN}/.well-known/openid-configuration",
)


@app.get("/login")
def login():
    callback = url_for("callback", _external=True)
    return oauth.auth0.authorize_redirect(redirect_uri=callback)


@app.get("/callback")
def callback():
    session["user"] = oauth.auth0.authorize_access_token()
    return redirect(url_for("home"))


@app.get("/logout")
def logout():
    session.clear()
    home = url_for("home", _external=True)
    query = urlencode({"returnTo": home, "client_id": environ["AUTH0_CLIENT_ID"]})
    return redirect(f"https://{DOMAIN}/v2/logout?{query}")


@app.get("/")
def home():
    user = session["user"]["userinfo"] if "user" in session else None
    return render_template_string(HOME, user=user)


@app.get("/profile")
def profile():
    return session["user"]["userinfo"] if "user" in session else redirect("/login")
