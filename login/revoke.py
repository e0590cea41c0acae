"""``flask auth0 revoke``: ends sessions from the command line."""

from __future__ import annotations

import click
from werkzeug.exceptions import ServiceUnavailable

from .commands import auth0_commands
from .extension import installed

__all__ = ["auth0_commands"]


@auth0_commands.command("revoke")
@click.option("--sub", help="End all sessions of this user, such as auth0|123.")
@click.option("--sid", help="End the one session that Auth0 knows by this id.")
@click.option("--all", "everybody", is_flag=True, help="End everybody's sessions.")
def revoke(sub: str | None, sid: str | None, everybody: bool) -> None:
    """End sessions at once, wherever their cookies are."""
    if [bool(sub), bool(sid), everybody].count(True) != 1:
        raise click.UsageError("Give one of --sub SUB, --sid SID and --all.")
    client = installed().client
    client.require_setup()
    lifetime = client.sessions.lifetime
    if client.settings.revocations_path == "none" and not client.settings.redis_url:
        raise click.ClickException(
            "AUTH0_REVOCATIONS_PATH is none, so nobody remembers what is ended. "
            "Name a file there, or change AUTH0_SECRET to end all sessions."
        )
    try:
        lifetime.revocations.open()
        lifetime.end_all(sub=sub, sid=sid)
    except ServiceUnavailable as error:
        raise click.ClickException(f"Nothing was ended: {error.__cause__}") from None
    whose = f"of {sub}" if sub else f"with the sid {sid}" if sid else "of everybody"
    click.echo(f"Ended: all sessions {whose} that began before now.")
