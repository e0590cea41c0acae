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
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from auth0_flask.tenant import Tenant

from .processes import Measure, RedisServer, free_port, measure, program, running
from .processes import set_environment as environment
from .soak_users import ENDINGS, TROUBLES, Browser, Scene, Turn, Wrong, take

AT_ONCE, THREADS = 32, 8
Measures = dict[int, Measure]  # by the process id of a worker
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
    for name, default in (("logins", 10_000), ("users", 100), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--redis", action="store_true", help="keep sessions there")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--app", default="app:create_app()", help="with these routes")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or servers would stay
    with ExitStack() as stack:
        scene, master, log = _start(options, stack)
        _soak(options, scene, master)
        said, wrong = log.read_text(errors="replace"), scene.wrong
    if number := said.count(_TRACEBACK):
        lines = said[max(0, said.index(_TRACEBACK) - 300) :][:3300]
        wrong.append(f"{number} tracebacks in the log: {lines}")
    for words in wrong:
        print(f"WRONG: {words}")
    print(f"{len(wrong)} wrong." if wrong else "Nothing wrong.")
    return 1 if wrong else 0


def post_worker_init(_: Any) -> None:
    """Say that this worker is ready, and tidy up when asked; called by gunicorn."""
    signal.signal(signal.SIGUSR2, lambda *_: gc.collect())
    print(_READY, flush=True)


def _start(options: argparse.Namespace, stack: ExitStack) -> tuple[Scene, int, Path]:
    """Start a tenant and gunicorn; return a scene, the process id and the log."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
    stack.enter_context(environment())
    tenant = stack.enter_context(Tenant())
    port, switch = free_port(), _switchable(folder)
    os.environ |= tenant.environ(f"http://localhost:{port}/callback")
    os.environ["AUTH0_REVOCATIONS_PATH"] = f"{folder}/disk/r.sqlite3"
    if options.redis:
        switch = redis = RedisServer(stack)
        os.environ["AUTH0_REDIS_URL"] = redis.url
    gunicorn = [
        *(str(program("gunicorn")), "--worker-class", "gthread"),
        *("--workers", str(options.workers), "--threads", str(THREADS)),
        *("--bind", f"127.0.0.1:{port}", "--config", "python:bench.soak"),
        *("--no-control-socket", options.app),
    ]
    log = folder / "log"
    output = stack.enter_context(log.open("wb"))
    master = stack.enter_context(running(gunicorn, port, output))
    while log.read_text(errors="replace").count(_READY) < options.workers:
        if master.poll() is not None:
            raise SystemExit(f"gunicorn ended:\n{log.read_text()}")
        time.sleep(0.1)
    return Scene(f"http://localhost:{port}", tenant, switch), master.pid, log


def _soak(options: argparse.Namespace, scene: Scene, master: int) -> None:
    """Have all take their turns, measure the workers now and then, print that."""
    print(f"Seed {options.seed}; {options.workers} workers, {options.users} users.\n")
    print("| After logins |", " | ".join(Measure._fields), "|\n|---|---|---|---|---|")
    began, first = time.monotonic(), Measures()
    users = [scene.browsers_of(number) for number in range(options.users)]
    turns = _plan(options.logins, options.users, options.seed)
    ends = [int(len(turns) * share) for share in (0, 0.1, 0.25, 0.5, 0.75, 1)]
    for begin, end in pairwise(ends):
        _log_in_all(scene, users, turns[begin:end])
        if len(scene.wrong) >= _TOO_MANY:
            break
        now = _measures(master)
        first = first or now
        scene.wrong += _growth(first, now, end)
        columns = zip(*now.values(), strict=True)
        cells = (" / ".join(f"{v:.0f}" for v in column) for column in columns)
        print(f"| {end:,} |", " | ".join(cells), "|", flush=True)
    seen, seconds = Counter(scene.seen), time.monotonic() - began
    print("| more at most |", " | ".join(f"+{most}" for most in _MOST_MORE), "|")
    print("\n| What | How often |\n|---|---|")
    for name in dict.fromkeys(["logins", *TROUBLES, *sorted(seen)]):
        print(f"| {name} | {seen[name]:,} |")
    print(f"| logins a second | {seen['logins'] / seconds:.1f} |\n")


def _log_in_all(scene: Scene, users: list[list[Browser]], turns: list[Turn]) -> None:
    """Have every user take their turns, one after the other."""

    def log_in(user: int) -> None:
        for turn in turns:
            if turn.user != user or len(scene.wrong) >= _TOO_MANY:
                continue
            try:
                take(turn, users[user], scene)
            except (Wrong, httpx.HTTPError, LookupError) as error:
                words = error if isinstance(error, Wrong) else repr(error)
                scene.wrong.append(f"user{user:04}, login {turn.number}: {words}")
                # what they know may be wrong from here on
                users[user] = scene.browsers_of(user)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(log_in, range(len(users))))


def _measures(master: int) -> Measures:
    """Return what each worker takes up when nobody asks."""
    children = Path(f"/proc/{master}/task/{master}/children").read_text()
    workers = sorted(map(int, children.split()))
    for pid in workers:
        os.kill(pid, signal.SIGUSR2)
    time.sleep(1)
    return {pid: measure(pid) for pid in workers}


def _growth(first: Measures, now: Measures, logins: int) -> Iterator[str]:
    """Say what takes up more than it may, and that a worker is another one."""
    if first.keys() != now.keys():
        yield f"workers {list(first)} became {list(now)}"
    most_more = _MOST_MORE._replace(rss=_MOST_MORE.rss + logins / 1_000)
    for pid in first.keys() & now.keys():
        measures = zip(Measure._fields, first[pid], now[pid], most_more, strict=True)
        for name, before, after, most in measures:
            if after - before > most:
                yield f"{name} of worker {pid} went from {before:g} to {after:g}"


def _plan(logins: int, users: int, seed: int) -> list[Turn]:
    """Return all logins of a run: users take turns, one of each ten is disturbed.

    The same seed makes the same plan; it has every kind once at least.
    """
    rng, number = random.Random(seed), logins // 10  # noqa: S311
    weights = [weight for weight, _ in TROUBLES.values()]
    kinds = [*TROUBLES, *rng.choices([*TROUBLES], weights, k=number)][:number]
    rng.shuffle(kinds)
    at = {ten * 10 + rng.randrange(10): kind for ten, kind in enumerate(kinds)}
    return [
        Turn(n, n % users, rng.randrange(2), at.get(n, ""), rng.choice(ENDINGS))
        for n in range(logins)
    ]


def _switchable(folder: Path) -> Callable[[bool], object]:
    """Make a folder that is gone in an instant, and back with all that is in it."""
    (folder / "there").mkdir()

    def switch(is_there: bool) -> None:
        # Renamed, the folder would be missing for a moment: the app would make one.
        (folder / "spare").symlink_to("there" if is_there else "nowhere")
        (folder / "spare").replace(folder / "disk")

    switch(True)
    return switch


if __name__ == "__main__":
    sys.exit(main())
