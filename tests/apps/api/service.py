"""A JSON API for a front end on another origin, and a page that htmx fills."""
# mypy: ignore-errors

from os import environ

import identity
from flask import Blueprint, Flask, request

FRONT_END = environ["AUTH0_ALLOWED_ORIGINS"]
INBOX = """
<button onclick="load()">Load</button><ul id="rows"></ul><a href="/logout">Sign out</a>
<script>
async function load() {  // as htmx does it
  const headers = {"HX-Request": "true", "HX-Current-URL": location.href};
  const answer = await fetch("/inbox/rows", {headers});
  const elsewhere = answer.headers.get("HX-Redirect");
  if (elsewhere) location.href = elsewhere;
  else document.getElementById("rows").innerHTML = await answer.text();
}
</script>
"""

app = Flask(__name__)
identity.init_app(app)
app.register_blueprint(identity.routes)
api = Blueprint("api", __name__, url_prefix="/api")
api.before_request(identity.login_required(redirect=False))


@app.get("/")
def home():
    return "Welcome back" if identity.auth_user else "Welcome Guest"


@app.get("/reports")
@identity.login_required
def reports():
    return f"Reports for {identity.auth_user['sub']} <a href='/logout'>Sign out</a>"


@app.get("/inbox")
@identity.login_required
def inbox():
    return INBOX


@app.get("/inbox/rows")
@identity.login_required
def rows():
    return f"<li>A letter to {identity.auth_user['name']}</li>"


@api.route("/orders", methods=["GET", "POST"])
async def orders():
    user = await identity.auth0.get_user()
    return {"sub": user["sub"], "wanted": request.get_json(silent=True)}


@app.after_request
def add_cors(response):
    if request.headers.get("Origin") == FRONT_END:
        response.headers["Access-Control-Allow-Origin"] = FRONT_END
        response.headers["Access-Control-Allow-Credentials"] = "true"
        response.headers["Access-Control-Allow-Headers"] = "Content-Type"
        response.vary.add("Origin")
    return response


app.register_blueprint(api)
