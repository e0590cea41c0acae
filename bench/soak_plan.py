"""What happens in a soak, all of it decided by the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


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
    """Return all logins of a run: users take turns, every tenth is disturbed."""
    rng = random.Random(seed)  # noqa: S311 - the same run for the same seed
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


def phases(turns: list[Turn]) -> list[list[Turn]]:
    """Cut a run after 10 %, 50 % and 100 % of its logins."""
    tenth, half = len(turns) // 10, len(turns) // 2
    return [turns[:tenth], turns[tenth:half], turns[half:]]


def _troubles(logins: int, rng: random.Random) -> dict[int, Trouble]:
    """Return by a login's number what disturbs it: one of each ten, every kind once."""
    number = logins // _EVERY
    more = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=number)
    kinds = [*_WEIGHTS, *more][:number]
    rng.shuffle(kinds)
    return {
        ten * _EVERY + rng.randrange(_EVERY): kind for ten, kind in enumerate(kinds)
    }
