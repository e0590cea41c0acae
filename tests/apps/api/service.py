"""A JSON API for a front end on another origin."""
# mypy: ignore-errors

from os import environ

import identity
from flask import Blueprint, Flask, request

FRONT_END = environ["AUTH0_ALLOWED_ORIGINS"]

app = Flask(__name__)
identity.init_app(app)
app.register_blueprint(identity.routes)
api = Blueprint("api", __name__, url_prefix="/api")
api.before_request(identity.login_required(redirect=False))


@app.get("/")
def home():
    return "Welcome back" if identity.auth_user else "Welcome Guest"


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
