"""Views with the mistakes that `flask auth0 check` finds, and one without."""

from __future__ import annotations

import asyncio
from typing import Any

from flask import Flask, redirect

from auth import auth0, login_required

app = Flask(__name__)
#: Views as Flask has them.
registered: dict[str, Any] = app.view_functions


@login_required
@app.get("/above")
async def above() -> str:
    return "for everybody, by mistake"


@app.get("/below")
@login_required
async def below() -> str:
    return "for those who are signed in"


async def in_a_condition() -> str:
    return "in" if auth0.get_user() else "out"


async def in_a_variable() -> str:
    user = auth0.get_user()
    return "in" if user else "out"


async def in_a_walrus() -> str:
    if state := auth0.get_session():
        return f"in {state}"
    return "out"


async def in_a_redirect() -> str:
    return redirect(auth0.start_interactive_login())  # type: ignore[arg-type,return-value]  # the mistake


async def in_what_is_asked_of_it() -> str:
    return str(auth0.get_user()["sub"])  # type: ignore[index]  # the mistake


async def in_text() -> str:
    return f"token {auth0.get_access_token()}"


async def as_it_should_be() -> str:
    later = auth0.get_user()
    both = [auth0.get_user(), auth0.get_session()]
    task = asyncio.create_task(auth0.get_user())
    user, session = await asyncio.gather(auth0.get_user(), auth0.get_session())
    state = auth0.get_session()
    await asyncio.wait_for(state, 1)
    return f"{await later} {await task} {user} {session} {await asyncio.gather(*both)}"
