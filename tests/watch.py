"""What is secret, and what is said: whether the two have anything in common."""

from __future__ import annotations

import re
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain

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
    """What is secret, and what has been said; thread-safe.

    Attributes:
        test: The test that runs now.
        secrets: What was noted, and of what kind it is.
    """

    def __init__(self) -> None:
        self.test = "no test"
        self.secrets: dict[str, str] = {}
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
        seen, ahead = set[int](), [error]
        while ahead:
            if id(link := ahead.pop()) in seen:
                continue
            seen.add(id(link))
            text = "".join(traceback.format_exception_only(link))
            self.hear("an exception", f"{link!r} {text}")
            led_here = link.__cause__, link.__context__, getattr(link, "cause", None)
            ahead += [e for e in led_here if isinstance(e, BaseException)]

    def leaks(self) -> set[str]:
        """Name every secret that was said: its kind, where, and in which test."""
        secret = self._blocks()
        found = set()
        for word, sources in self._said.items():
            kinds = {secret.get(block) for block in _slices(word, 1)} - {None}
            for kind in kinds:
                for source, test in sources.items():
                    found.add(f"{kind} in {source}, first in {test}")
        return found

    def _blocks(self) -> dict[str, str]:
        """Cut the secrets up, so that a part of one is recognized as well."""
        words = {s: _WORD.findall(s) for s in self.secrets}
        cut = {
            secret: {block for word in found for block in _slices(word, _STRIDE)}
            for secret, found in words.items()
        }
        often = Counter(chain.from_iterable(cut.values()))
        return {
            block: self.secrets[secret]
            for secret, blocks in cut.items()
            for block in blocks
            if often[block] < _IN_COMMON
        }


def _slices(word: str, stride: int) -> Iterator[str]:
    last = len(word) - BLOCK
    starts = {*range(0, last + 1, stride), last}
    return (word[start : start + BLOCK] for start in starts)


#: Of this run.
watch = Watch()
