"""An async app whose sessions Flask-Session keeps in Redis; it caches, too."""
# mypy: ignore-errors

from os import environ

import login
from flask import Flask, session
from flask_caching import Cache
from flask_session import Session
from login import auth0
from redis import Redis

from auth0_flask.event_loops import reuse_event_loops

app = Flask(__name__)
app.config.from_mapping(
    SESSION_TYPE="redis",
    SESSION_REDIS=Redis.from_url(environ["REDIS_URL"]),
    CACHE_TYPE="RedisCache",
    CACHE_REDIS_URL=environ["REDIS_URL"],
)
app.async_to_sync = reuse_event_loops
Session(app)
cache = Cache(app)
login.init_app(app)
app.register_blueprint(login.routes)


@app.get("/")
async def home():
    user = await auth0.get_user()
    return "Welcome back" if user else "Welcome Guest"


@app.get("/reports")
@login.login_required
@cache.cached(make_cache_key=lambda *_, **__: login.auth_user["sub"])
async def reports():
    session["made"] = session.get("made", 0) + 1
    user = await auth0.get_user()
    return f"Reports for {user['sub']} <a href='/logout'>Sign out</a>"


@app.get("/made")
@login.login_required
async def made():
    return str(session.get("made", 0))
