"""What is secret, and what is said: whether the two have anything in common."""

from __future__ import annotations

import re
import traceback
from collections import Counter, defaultdict

#: Characters in a row that count as a leak; fewer may be a coincidence.
BLOCK = 16
_STRIDE = 8
#: Characters that a secret consists of at least; "xxxx…" may be anything.
_DISTINCT = 8
#: What this many secrets have in common, such as the header of a JWT, is none.
_IN_COMMON = 20
_WORD = re.compile(rf"[\w.~+/=%-]{{{BLOCK},}}")
# The address of a callback has the code, and a server logs addresses: it is good
# once, and for nothing without its verifier (RFC 7636).
_SPENT = re.compile(r"(GET \S*/callback\?)\S+(?= HTTP/1)")


class Watch:
    """What is secret, and what has been said; thread-safe."""

    def __init__(self) -> None:
        self.test = "no test"  # that runs now
        self.secrets: dict[str, str] = {}  # what was noted, and of what kind it is
        self._said: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def note(self, kind: str, secret: object) -> None:
        """Note that something is secret; not what repeats itself, as a test's may."""
        if not isinstance(secret, str) or len(set(secret)) < _DISTINCT:
            return
        if secret.startswith("eyJ"):  # the header of a JWT or JWE is no secret
            secret = secret.partition(".")[2]
        if len(secret) >= BLOCK:
            self.secrets.setdefault(secret, kind)

    def hear(self, source: str, text: str) -> None:
        """Take in what was said, word by word, each once."""
        for word in _WORD.findall(text):
            self._said[word].setdefault(source, self.test)

    def hear_server(self, source: str, text: str | bytes | None) -> None:
        """Take in what was said where there may be an access log."""
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        self.hear(source, _SPENT.sub(r"\1", text or ""))

    def hear_exception(self, error: BaseException) -> None:
        """Take in the texts of an exception and of all that led to it."""
        ahead, seen = [error], set[int]()
        while ahead:
            if id(link := ahead.pop()) not in seen:
                seen.add(id(link))
                text = "".join(traceback.format_exception_only(link))
                self.hear("an exception", f"{link!r} {text}")
                led = link.__cause__, link.__context__, getattr(link, "cause", None)
                ahead += [e for e in led if isinstance(e, BaseException)]

    def leaks(self) -> set[str]:
        """Name every secret that was said: its kind, where, and in which test."""
        kinds, often = dict[str, str](), Counter[str]()
        for secret, kind in self.secrets.items():
            # it is cut up, so that a part of it is recognized as well
            found = {
                b for word in _WORD.findall(secret) for b in _blocks(word, _STRIDE)
            }
            often.update(found)
            kinds |= dict.fromkeys(found, kind)
        return {
            f"{kinds[block]} in {source}, first in {test}"
            for word, sources in self._said.items()
            for block in kinds.keys() & _blocks(word, 1)
            if often[block] < _IN_COMMON
            for source, test in sources.items()
        }


def _blocks(word: str, stride: int) -> set[str]:
    last = len(word) - BLOCK
    return {word[at : at + BLOCK] for at in (*range(0, last + 1, stride), last)}


#: Of this run.
watch = Watch()
