"""A soak test: many logins, one of ten with a fault.

``python -m bench.soak`` fails unless all this holds: A login without a fault succeeds.
A login with a fault ends on our error page, and the next try succeeds. No user sees
another user's name. Ended sessions stay ended. The log has no traceback. No worker uses
more and more resources (Linux only). This module is also gunicorn's configuration.
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

from .processes import RedisServer, Resources, free_port, program, resources, running
from .processes import set_environment as environment
from .soak_users import ENDINGS, FAULTS, Browser, Failure, Login, Run, perform

CONCURRENCY, THREADS = 32, 8
Usage = dict[int, Resources]  # by the process id of a worker
_MAX_FAILURES = 20
_READY = "A worker is ready."
_TRACEBACK = "Traceback (most recent call last)"
#: A worker's allowed growth after the first tenth of the logins, besides 1 MB for each
#: 1,000 logins for the cache of revocations. Each thread may still add a helper thread,
#: a connection to the tenant, two to Redis (for a view and a refresh), and a file. A
#: leak in each login exceeds this by far.
_MAX_GROWTH = Resources(12, 2 * THREADS, 3 * THREADS, 4 * THREADS)


def main() -> int:
    """Run the test, print tables, and return 1 if it failed."""
    parser = argparse.ArgumentParser("bench.soak", description=__doc__)
    for name, default in (("logins", 10_000), ("users", 100), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--redis", action="store_true", help="store sessions in Redis")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--app", default="app:create_app()", help="like the demo")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to stop the servers
    with ExitStack() as stack:
        run, master, log = _start(options, stack)
        _run_all(options, run, master)
        output, failures = log.read_text(errors="replace"), run.failures
    if number := output.count(_TRACEBACK):
        lines = output[max(0, output.index(_TRACEBACK) - 300) :][:3300]
        failures.append(f"{number} tracebacks in the log: {lines}")
    for failure in failures:
        print(f"WRONG: {failure}")
    print(f"{len(failures)} wrong." if failures else "Nothing wrong.")
    return 1 if failures else 0


def post_worker_init(_: Any) -> None:
    """Log that this worker is ready; collect garbage on SIGUSR2. A gunicorn hook."""
    signal.signal(signal.SIGUSR2, lambda *_: gc.collect())
    print(_READY, flush=True)


def _start(options: argparse.Namespace, stack: ExitStack) -> tuple[Run, int, Path]:
    """Start a tenant and gunicorn; return the run, gunicorn's process ID and log."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
    stack.enter_context(environment())
    tenant = stack.enter_context(Tenant())
    port, switch = free_port(), _switchable_folder(folder)
    os.environ |= tenant.environ(f"http://localhost:{port}/callback")
    os.environ["AUTH0_REVOCATIONS_PATH"] = f"{folder}/disk/r.sqlite3"
    if options.redis:
        redis = RedisServer(stack)
        switch, os.environ["AUTH0_REDIS_URL"] = redis.switch, redis.url
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
    return Run(f"http://localhost:{port}", tenant, switch), master.pid, log


def _run_all(options: argparse.Namespace, run: Run, master: int) -> None:
    """Run all logins; measure the workers at times and print the table."""
    print(f"Seed {options.seed}; {options.workers} workers, {options.users} users.\n")
    print("| After logins |", " | ".join(Resources._fields), "|\n|---|---|---|---|---|")
    began, first = time.monotonic(), Usage()
    users = [run.new_browsers(number) for number in range(options.users)]
    logins = _plan(options.logins, options.users, options.seed)
    ends = [int(len(logins) * share) for share in (0, 0.1, 0.25, 0.5, 0.75, 1)]
    for begin, end in pairwise(ends):
        _log_in_all(run, users, logins[begin:end])
        if len(run.failures) >= _MAX_FAILURES:
            break
        now = _usage(master)
        first = first or now
        run.failures += _growth(first, now, end)
        columns = zip(*now.values(), strict=True)
        cells = (" / ".join(f"{v:.0f}" for v in column) for column in columns)
        print(f"| {end:,} |", " | ".join(cells), "|", flush=True)
    counts, seconds = Counter(run.counted), time.monotonic() - began
    print("| allowed growth |", " | ".join(f"+{limit}" for limit in _MAX_GROWTH), "|")
    print("\n| Event | Count |\n|---|---|")
    for name in dict.fromkeys(["logins", *FAULTS, *sorted(counts)]):
        print(f"| {name} | {counts[name]:,} |")
    print(f"| logins per second | {counts['logins'] / seconds:.1f} |\n")


def _log_in_all(run: Run, users: list[list[Browser]], logins: list[Login]) -> None:
    """Run each user's logins one after another, and the users concurrently."""

    def log_in(user: int) -> None:
        for login in logins:
            if login.user != user or len(run.failures) >= _MAX_FAILURES:
                continue
            try:
                perform(login, users[user], run)
            except (Failure, httpx.HTTPError, LookupError) as error:
                text = error if isinstance(error, Failure) else repr(error)
                run.failures.append(f"user{user:04}, login {login.number}: {text}")
                # the state of the old browsers is unknown now
                users[user] = run.new_browsers(user)

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        list(pool.map(log_in, range(len(users))))


def _usage(master: int) -> Usage:
    """Return the resources of each worker when it is idle."""
    children = Path(f"/proc/{master}/task/{master}/children").read_text()
    workers = sorted(map(int, children.split()))
    for pid in workers:
        os.kill(pid, signal.SIGUSR2)
    time.sleep(1)
    return {pid: resources(pid) for pid in workers}


def _growth(first: Usage, now: Usage, logins: int) -> Iterator[str]:
    """Yield a failure for each resource that grew too much, and for new workers."""
    if first.keys() != now.keys():
        yield f"workers {list(first)} were replaced by {list(now)}"
    limits = _MAX_GROWTH._replace(rss=_MAX_GROWTH.rss + logins / 1_000)
    for pid in first.keys() & now.keys():
        values = zip(Resources._fields, first[pid], now[pid], limits, strict=True)
        for name, before, after, limit in values:
            if after - before > limit:
                yield f"{name} of worker {pid} went from {before:g} to {after:g}"


def _plan(logins: int, users: int, seed: int) -> list[Login]:
    """Return all logins of a run, by users in turn; one of each ten has a fault.

    The same seed gives the same plan. Each fault occurs if there are enough logins.
    """
    rng, number = random.Random(seed), logins // 10  # noqa: S311
    weights = [weight for weight, _ in FAULTS.values()]
    faults = [*FAULTS, *rng.choices([*FAULTS], weights, k=number)][:number]
    rng.shuffle(faults)
    at = {ten * 10 + rng.randrange(10): fault for ten, fault in enumerate(faults)}
    return [
        Login(n, n % users, rng.randrange(2), at.get(n, ""), rng.choice(ENDINGS))
        for n in range(logins)
    ]


def _switchable_folder(folder: Path) -> Callable[[bool], object]:
    """Make a folder "disk"; return a function that removes or restores it at once."""
    (folder / "there").mkdir()

    def switch(on: bool) -> None:
        # Replace a link, since the app would create a missing folder.
        (folder / "spare").symlink_to("there" if on else "nowhere")
        (folder / "spare").replace(folder / "disk")

    switch(True)
    return switch


if __name__ == "__main__":
    sys.exit(main())
