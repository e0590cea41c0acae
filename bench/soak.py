"""Many logins, every tenth of them disturbed, and nothing may come of it.

``python -m bench.soak`` fails unless every login succeeds that nobody disturbed, every
other one ends on our error page and succeeds when it is tried again, nobody is ever
told of another user, what was ended stays ended, the log has no traceback, and no
worker takes up more and more (Linux only). gunicorn takes this for its configuration.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import httpx

from auth0_flask.tenant import Fault, Tenant

from . import soak_users
from .processes import Measure, RedisServer, free_port, measure, program, running
from .processes import set_environment as environment
from .soak_users import TROUBLES, Scene, Turn, Wrong

THREADS = 8
_TOO_MANY = 20
_READY = "A worker is ready."
_TRACEBACK = "Traceback (most recent call last)"


#: What a worker may take up more than after the first tenth of the logins, and 1 MB for
#: each 1,000 of them: it knows every session that was ended. Each thread may come to
#: have a helper, a connection to the tenant, two to Redis (of a view and of a refresh),
#: and a file. Whatever leaks at each login goes far beyond.
_MOST_MORE = Measure(12, 2 * THREADS, 3 * THREADS, 4 * THREADS)


def main() -> int:
    """Run, print a table, and return 1 if anything was wrong."""
    parser = argparse.ArgumentParser("bench.soak", description=__doc__)
    for name, default in (("logins", 10_000), ("users", 100), ("at-once", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--redis", action="store_true", help="keep sessions there")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--app", default="app:create_app()", help="with these routes")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or servers would stay
    with ExitStack() as stack:
        run = Run(options, stack)
        run.soak()
        said = run.log.read_text(errors="replace")
    if number := said.count(_TRACEBACK):
        lines = said[max(0, said.index(_TRACEBACK) - 300) :][:3300]
        run.wrong.append(f"{number} tracebacks in the log: {lines}")
    for words in run.wrong[:_TOO_MANY]:
        print(f"WRONG: {words}")
    if run.wrong:
        print(*(x for x in said.splitlines() if "is unavailable" in x), sep="\n")
    print(f"{len(run.wrong)} wrong." if run.wrong else "Nothing wrong.")
    return 1 if run.wrong else 0


class Run:
    """One run: its processes, its users and what went wrong."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        self._options, self.wrong = options, list[str]()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        stack.enter_context(environment())
        tenant, port = stack.enter_context(Tenant()), free_port()
        switch: Callable[[bool], object] = _switchable(folder)
        os.environ |= tenant.environ(f"http://localhost:{port}/callback")
        os.environ["AUTH0_REVOCATIONS_PATH"] = f"{folder}/disk/r.sqlite3"
        if options.redis:
            switch = redis = RedisServer(stack)
            os.environ["AUTH0_REDIS_URL"] = redis.url
        self.log, workers = folder / "log", str(options.workers)
        output = stack.enter_context(self.log.open("wb"))
        gunicorn = [
            *(str(program("gunicorn")), "--worker-class", "gthread"),
            *("--workers", workers, "--threads", str(THREADS), "--keep-alive", "60"),
            *("--bind", f"127.0.0.1:{port}", "--config", "python:bench.soak"),
            *("--no-control-socket", options.app),
        ]
        master = stack.enter_context(running(gunicorn, port, output=output))
        while self.log.read_text(errors="replace").count(_READY) < options.workers:
            if master.poll() is not None:
                raise SystemExit(f"gunicorn ended:\n{self.log.read_text()}")
            time.sleep(0.1)
        self._children = Path(f"/proc/{master.pid}/task/{master.pid}/children")
        self._scene = Scene(f"http://localhost:{port}", tenant, switch)
        self._users = [*map(self._scene.browsers_of, range(options.users))]
        self._pool = stack.enter_context(ThreadPoolExecutor(options.at_once))

    def soak(self) -> None:
        """Have all take their turns, measure the workers now and then, print that."""
        options, first, began = self._options, dict[int, Measure](), time.monotonic()
        size = f"{options.workers} workers, {options.users} users, {options.at_once} at"
        print(f"Seed {options.seed}; {size} once.\n\n| After logins |", end="")
        print("", *Measure._fields, "\n|---|---|---|---|---|", sep=" | ")
        self._warm_up()
        turns = _plan(options.logins, options.users, options.seed)
        ends = [int(len(turns) * share) for share in (0, 0.1, 0.25, 0.5, 0.75, 1)]
        for begin, end in pairwise(ends):
            self._log_in_all(turns[begin:end])
            if len(self.wrong) >= _TOO_MANY:
                break
            now = self._measures()
            first = first or now
            self.wrong += _growth(first, now, end)
            columns = zip(*now.values(), strict=True)
            cells = (" / ".join(f"{v:.0f}" for v in column) for column in columns)
            print(f"| {end:,} |", " | ".join(cells), "|", flush=True)
        seen, seconds = Counter(self._scene.seen), time.monotonic() - began
        print("| more at most |", " | ".join(f"+{most}" for most in _MOST_MORE), "|\n")
        print("| What | How often |\n|---|---|")
        for name in dict.fromkeys(["logins", *TROUBLES, *sorted(seen)]):
            print(f"| {name} | {seen[name]:,} |")
        print(f"| logins a second | {seen['logins'] / seconds:.1f} |\n")

    def _warm_up(self) -> None:
        """Have every user in, and all threads of all workers at work at once."""
        nothing = soak_users.NOTHING
        self._log_in_all([Turn(0, n, 0, "", nothing) for n in range(len(self._users))])
        before, now, together = None, [0], 3 * THREADS * self._options.workers
        for _ in range(10):
            if before == now:
                break
            self._scene.tenant.fail("userinfo", Fault.slow(0.2), times=together)
            with ThreadPoolExecutor(together) as pool:
                for user in islice(cycle(self._users), together):
                    pool.submit(user[0].look_at, "/api/userinfo")
            before, now = now, [each.files for each in self._measures().values()]
        self._scene.seen.clear()

    def _log_in_all(self, turns: list[Turn]) -> None:
        """Have every user take their turns, one after the other."""
        by_user: defaultdict[int, list[Turn]] = defaultdict(list)
        for turn in turns:
            by_user[turn.user].append(turn)
        list(self._pool.map(self._log_in_one, by_user.values()))

    def _log_in_one(self, turns: list[Turn]) -> None:
        number = turns[0].user
        for turn in turns:
            if len(self.wrong) >= _TOO_MANY:
                return
            try:
                soak_users.take(turn, self._users[number], self._scene)
            except (Wrong, httpx.HTTPError, ValueError) as error:
                words = str(error) if isinstance(error, Wrong) else repr(error)
                self.wrong.append(f"user{number:04}, login {turn.number}: {words}")
                # what they know may be wrong from here on
                self._users[number] = self._scene.browsers_of(number)

    def _measures(self) -> dict[int, Measure]:
        """Return by its process id what each worker takes up when nobody asks."""
        workers = [int(pid) for pid in sorted(self._children.read_text().split())]
        for pid in workers:
            os.kill(pid, signal.SIGUSR2)
        time.sleep(1)
        return {pid: measure(pid) for pid in workers}


def post_worker_init(_: Any) -> None:
    """Say that this worker is ready, and tidy up when asked; called by gunicorn."""
    signal.signal(signal.SIGUSR2, lambda *_: gc.collect())
    print(_READY, flush=True)


def _switchable(folder: Path) -> Callable[[bool], None]:
    """Make a folder that is gone in an instant, and back with all that is in it."""
    there, gone, spare = folder / "there", folder / "gone", folder / "spare"
    there.mkdir()
    gone.touch()

    def switch(is_there: bool) -> None:
        # Renamed, the folder would be missing for a moment: the app would make one.
        spare.symlink_to(there if is_there else gone)
        os.replace(spare, folder / "disk")

    switch(True)
    return switch


def _plan(logins: int, users: int, seed: int) -> list[Turn]:
    """Return all logins of a run: users take turns, one of each ten is disturbed.

    The same seed makes the same plan; it has every kind once at least.
    """
    rng, number = random.Random(seed), logins // 10  # noqa: S311
    weights = [weight for weight, _ in TROUBLES.values()]
    kinds = [*TROUBLES, *rng.choices([*TROUBLES], weights, k=number)][:number]
    rng.shuffle(kinds)
    at = {ten * 10 + rng.randrange(10): kind for ten, kind in enumerate(kinds)}
    ends = [soak_users.LOGOUT, soak_users.EVERYWHERE, soak_users.NOTHING]
    return [
        Turn(n, n % users, rng.randrange(2), at.get(n, ""), rng.choice(ends))
        for n in range(logins)
    ]


def _growth(
    first: dict[int, Measure], now: dict[int, Measure], logins: int
) -> Iterator[str]:
    """Say what takes up more than it may, and that a worker is another one."""
    if first.keys() != now.keys():
        yield f"workers {list(first)} became {list(now)}"
    for pid in first.keys() & now.keys():
        most_more = _MOST_MORE._replace(rss=_MOST_MORE.rss + logins / 1_000)
        measures = zip(Measure._fields, first[pid], now[pid], most_more, strict=True)
        for name, before, after, most in measures:
            if after - before > most:
                yield f"{name} of worker {pid} went from {before:g} to {after:g}"


if __name__ == "__main__":
    sys.exit(main())
