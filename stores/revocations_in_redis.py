"""Revocations in Redis, for all machines that share it."""

from __future__ import annotations

from collections.abc import Sequence
from secrets import token_urlsafe

from redis import Redis, RedisError

from .revocations import RevocationsUnavailable, digest

#: Keys: what to note, and last the jti, if there is one.
#: Arguments: at, until in milliseconds, and a word of this call's own or nothing.
#: A client that got no answer sends the same call again, which is no replay.
_NOTE = """
local now = redis.call('TIME')
local left = math.floor(ARGV[2] - now[1] * 1000 - now[2] / 1000)
local last = #KEYS
if ARGV[3] ~= '' then
    local seen = redis.call('GET', KEYS[last])
    if seen and seen ~= ARGV[3] then return 0 end
    if left > 0 then redis.call('SET', KEYS[last], ARGV[3], 'PX', left) end
    last = last - 1
end
for i = 1, (left > 0 and last or 0) do
    local old = redis.call('GET', KEYS[i])
    local keep = math.max(left, redis.call('PTTL', KEYS[i]))
    local at = old and tonumber(old) > tonumber(ARGV[1]) and old or ARGV[1]
    redis.call('SET', KEYS[i], at, 'PX', keep)
end
return 1
"""


class RedisRevocations:
    """Keeps them in Redis, each until it may be forgotten.

    It cannot know since when Redis remembers: one that was emptied has forgotten.

    Args:
        client: Of redis-py, not of a cluster.
    """

    def __init__(self, client: Redis) -> None:
        self._redis = client
        self._note = client.register_script(_NOTE)

    def revoke(
        self, keys: Sequence[str], *, at: float, until: float, jti: str | None = None
    ) -> bool:
        """See `Revocations.revoke`."""
        names = [_name(key) for key in keys]
        word = ""
        if jti is not None:
            names.append(f"auth0-flask:seen:{digest(jti)}")
            word = token_urlsafe(12)
        try:
            return bool(self._note(names, [repr(at), int(until * 1000), word]))
        except RedisError as error:
            raise RevocationsUnavailable from error

    def revoked_at(self, keys: Sequence[str]) -> float:
        """See `Revocations.revoked_at`; 0.0 if there is none."""
        if not keys:
            return 0.0
        try:
            found = self._redis.mget([_name(key) for key in keys])
        except RedisError as error:
            raise RevocationsUnavailable from error
        return max((float(at) for at in found if at is not None), default=0.0)

    def open(self) -> None:
        """Do nothing: an outage at the start must not stop the app."""


def _name(key: str) -> str:
    return f"auth0-flask:revoked:{digest(key)}"
