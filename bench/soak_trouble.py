"""What happens in a soak: the plan, and the trouble that it makes."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from auth0_flask.tenant import Fault, Tenant

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

#: Seconds that the token endpoint lets the app wait; it gives up before.
TOO_LATE = 8.0
OUTAGE_SECONDS = 1.0
_SERVER_ERRORS = (500, 502, 503, 504)
_PLENTY = 5  # exchanges for each login that was planned


class Trouble(StrEnum):
    """What disturbs an exchange."""

    SERVER_ERROR = "the token endpoint answers 5xx"
    CUT = "its connection is cut"
    BROKEN_JSON = "its JSON is broken"
    SLOW = "its answer comes too late"
    ROTATED = "the signing key is another one"
    OUTAGE = "what the app keeps is gone for a second"


class Ending(StrEnum):
    """What somebody does who is signed in."""

    LOGOUT = "logout"
    EVERYWHERE = "logout everywhere"
    NOTHING = "nothing"


# A key is looked for anew thirty times a minute at most, and each rotation takes
# a few of these in every worker; an outage holds up everybody for a second.
_WEIGHTS = {
    Trouble.SERVER_ERROR: 12,
    Trouble.CUT: 12,
    Trouble.BROKEN_JSON: 10,
    Trouble.SLOW: 3,
    Trouble.ROTATED: 1,
    Trouble.OUTAGE: 2,
}
_EVERY = 10
BROWSERS = 2


@dataclass(frozen=True)
class Turn:
    """One login of one user, and what comes of it.

    Attributes:
        number: Which login of the run it is, from 0.
        user: The number of the user.
        browser: In which of the user's browsers.
        trouble: What disturbs it, or None.
        ending: What the user does then.
    """

    number: int
    user: int
    browser: int
    trouble: Trouble | None
    ending: Ending


def plan(logins: int, users: int, seed: int) -> list[Turn]:
    """Return all logins of a run: users take turns, every tenth is disturbed.

    The same seed makes the same plan.
    """
    rng = random.Random(seed)  # noqa: S311  # nosec B311
    troubles = _troubles(logins, rng)
    return [
        Turn(
            number=number,
            user=number % users,
            browser=rng.randrange(BROWSERS),
            trouble=troubles.get(number),
            ending=rng.choice(list(Ending)),
        )
        for number in range(logins)
    ]


def once_each(users: int) -> list[Turn]:
    """Return a login of every user that comes before the plan, and does not count."""
    return [Turn(0, user, 0, None, Ending.NOTHING) for user in range(users)]


def phases(turns: list[Turn]) -> list[list[Turn]]:
    """Cut a run after a tenth of its logins, and after each quarter."""
    ends = [int(len(turns) * share) for share in (0, 0.1, 0.25, 0.5, 0.75, 1)]
    return [turns[begin:end] for begin, end in pairwise(ends)]


def _troubles(logins: int, rng: random.Random) -> dict[int, Trouble]:
    """Return by a login's number what disturbs it: one of each ten, every kind once."""
    number = logins // _EVERY
    more = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=number)
    kinds = [*_WEIGHTS, *more][:number]
    rng.shuffle(kinds)
    return {
        ten * _EVERY + rng.randrange(_EVERY): kind for ten, kind in enumerate(kinds)
    }


class Moments:
    """When something happened that everybody may have noticed."""

    def __init__(self) -> None:
        self._passed = 0
        self.is_now = False

    def mark(self) -> int:
        """Return what `since` takes later."""
        return self._passed

    def since(self, mark: int) -> bool:
        """Tell whether it happened at any time since that mark, or does now."""
        return self.is_now or self._passed != mark

    def note(self) -> None:
        """Note that it is over."""
        self._passed += 1


class Aim:
    """Disturbs the exchange of one code, whoever else is at the token endpoint.

    Args:
        tenant: Whose token endpoint; for nothing else from now on.
        logins: How many will come.
    """

    def __init__(self, tenant: Tenant, logins: int) -> None:
        self.rotations = Moments()
        self._tenant = tenant
        self._by_code: dict[str, Fault] = {}
        self._lock = threading.Lock()
        tenant.fail("token", Fault(self._act), times=logins * _PLENTY)

    def at(self, code: str, trouble: Trouble, number: int) -> None:
        """Disturb what happens to this code."""
        with self._lock:
            self._by_code[code] = self._fault(trouble, number)

    def has_hit(self, code: str) -> bool:
        """Tell whether the code came, and was disturbed; it is not from now on."""
        with self._lock:
            return self._by_code.pop(code, None) is None

    def _fault(self, trouble: Trouble, number: int) -> Fault:
        if trouble is Trouble.SERVER_ERROR:
            return Fault.status(_SERVER_ERRORS[number % len(_SERVER_ERRORS)])
        faults: dict[Trouble, Callable[[], Fault]] = {
            Trouble.CUT: Fault.reset,
            Trouble.BROKEN_JSON: Fault.broken_json,
            Trouble.SLOW: lambda: Fault.slow(TOO_LATE),
            Trouble.ROTATED: lambda: Fault(self._rotate),
        }
        return faults[trouble]()

    def _act(self, environ: Any, stopping: threading.Event) -> Response | None:
        body = environ["wsgi.input"]
        code = parse_qs(body.read().decode()).get("code", [""])[0]
        body.seek(0)
        with self._lock:
            fault = self._by_code.pop(code, None)
        return fault.act(environ, stopping) if fault else None

    def _rotate(self, *_: object) -> None:
        self._tenant.rotate_keys()
        self.rotations.note()


class Outage:
    """Takes away what the app keeps its sessions or revocations in.

    Args:
        take_away: Does so.
        bring_back: Puts it where it was, as it was; may block.
    """

    def __init__(
        self, take_away: Callable[[], object], bring_back: Callable[[], object]
    ) -> None:
        self.moments = Moments()
        self._take_away = take_away
        self._bring_back = bring_back
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def happening(self) -> AsyncIterator[None]:
        """Have it away inside the block, and for a second at least."""
        async with self._lock:
            self.moments.is_now = True
            await asyncio.to_thread(self._take_away)
            second = asyncio.create_task(asyncio.sleep(OUTAGE_SECONDS))
            try:
                yield
                await second
            finally:
                await asyncio.to_thread(self._bring_back)
                self.moments.is_now = False
                self.moments.note()

    async def over(self) -> None:
        """Wait until it is."""
        async with self._lock:
            pass


class Disk:
    """A folder that can be gone in an instant, and come back with all that is in it.

    Args:
        folder: Where to make it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self._there, self._spare = folder / "there", folder / "spare"
        self._gone = folder / "gone"
        self._there.mkdir()
        self._gone.touch()
        self.path.symlink_to(self._there)

    def take_away(self) -> None:
        """Have no file open there, and none be made anew."""
        self._point_to(self._gone)

    def bring_back(self) -> None:
        """Have everything there as it was."""
        self._point_to(self._there)

    def _point_to(self, target: Path) -> None:
        # Renamed, the folder would be missing for a moment: the app would make one.
        self._spare.symlink_to(target)
        os.replace(self._spare, self.path)
