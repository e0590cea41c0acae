"""Many logins, every tenth of them disturbed, and nothing may come of it.

``python -m bench.soak`` fails unless every login succeeds that nobody disturbed, every
other one ends on our error page and succeeds when it is tried again, nobody is ever
told of another user, what was ended stays ended, the log has no traceback, and no
worker takes up more and more.

- ``soak_trouble`` plans by the seed what happens, and makes the trouble: at the
  tenant, and where the app keeps its sessions or revocations.
- ``soak_site`` reads the app's answers, and tells which of them an outage excuses.
- ``soak_users`` log in, look around and log out, and say what is wrong.
- ``soak_server`` runs gunicorn and Redis, and measures the workers (Linux only).
- ``soak`` starts everything, has the users take their turns, and reports.

Each imports only those above it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from itertools import cycle, islice
from pathlib import Path

import httpx

from auth0_flask.tenant import Fault, Tenant

from .processes import free_port
from .soak_server import THREADS, Measure, RedisServer, Workers, serving
from .soak_site import OF_OTHERS, Scene, Wrong
from .soak_trouble import (
    Aim,
    Disk,
    Ending,
    Outage,
    Trouble,
    Turn,
    once_each,
    phases,
    plan,
)
from .soak_users import User

#: What a worker may take up more than after the first tenth of the logins. It knows
#: every session that was ended, 0.3 KB each. Each thread may come to have a helper, a
#: connection to the tenant, two to Redis (of a view and of a refresh), and a file.
#: Whatever leaks at each login goes far beyond.
MOST_MORE = Measure(
    rss=12,
    threads=2 * THREADS,
    sockets=3 * THREADS,
    files=4 * THREADS,
    loops=2,
    objects=8,
)
_TOO_MANY = 20
_OUTAGE = "A store is unavailable"
_MOST_BURSTS = 10
_BURST_SECONDS = 0.2


@dataclass
class Run:
    """What is known of a run while it goes on.

    Attributes:
        scene: What all users meet.
        users: By number.
        at_once: Keeps the rest of them waiting.
        wrong: What went wrong, in words.
        points: After how many logins: what each worker took up, by process id.
        seconds: How long the logins took, without the measuring.
    """

    scene: Scene
    users: list[User]
    at_once: asyncio.Semaphore
    wrong: list[str] = field(default_factory=list)
    points: dict[int, dict[int, Measure]] = field(default_factory=dict)
    seconds: float = 0.0


def main() -> int:
    """Run, print a table, and return 1 if anything was wrong."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or servers would stay
    _print_head(options)
    with _stage(options) as (workers, scene):
        run = asyncio.run(_soak(options, workers, scene))
        run.wrong += _growth(run.points)
        said = workers.said()
        run.wrong += _tracebacks(said)
    _print_counts(run)
    for words in run.wrong[:_TOO_MANY]:
        print(f"WRONG: {words}")
    if run.wrong:
        print(*(line for line in said.splitlines() if _OUTAGE in line), sep="\n")
    print(f"{len(run.wrong)} wrong." if run.wrong else "Nothing wrong.")
    return 1 if run.wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--logins", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--redis", action="store_true", help="keep sessions there")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--app", default="app:create_app()", help="another one with the same routes"
    )
    return parser


@contextmanager
def _stage(options: argparse.Namespace) -> Iterator[tuple[Workers, Scene]]:
    """Start all processes, with their files in a folder of this run alone."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        tenant, port = stack.enter_context(Tenant()), free_port()
        disk = Disk(folder)
        environment = {
            **{n: v for n, v in os.environ.items() if not n.startswith("AUTH0_")},
            **tenant.environ(f"http://localhost:{port}/callback"),
            "AUTH0_REVOCATIONS_PATH": str(disk.path / "revocations.sqlite3"),
        }
        outage = Outage(disk.take_away, disk.bring_back)
        if options.redis:
            redis = RedisServer(folder)
            stack.callback(redis.kill)
            redis.start()
            environment["AUTH0_REDIS_URL"] = redis.url
            outage = Outage(redis.kill, redis.start)
        workers = stack.enter_context(
            serving(options.app, options.workers, port, environment, folder)
        )
        aim = Aim(tenant, options.logins + options.users)
        yield workers, Scene(f"http://localhost:{port}", tenant, aim, outage)


async def _soak(options: argparse.Namespace, workers: Workers, scene: Scene) -> Run:
    users = [User(scene, number) for number in range(options.users)]
    run = Run(scene, users, asyncio.Semaphore(options.at_once))
    await _warm_up(run, workers)
    done = 0
    for turns in phases(plan(options.logins, options.users, options.seed)):
        began = time.monotonic()
        await _log_in_all(run, turns)
        run.seconds += time.monotonic() - began
        done += len(turns)
        if len(run.wrong) >= _TOO_MANY:
            break
        await scene.connections.begin_anew()
        await asyncio.sleep(0.5)  # the workers have to notice
        run.points[done] = await asyncio.to_thread(workers.measure)
        _print_row(done, run.points[done])
    for user in users:
        await user.close()
    return run


async def _warm_up(run: Run, workers: Workers) -> None:
    """Have every user in, and all threads of all workers at work at once."""
    await _log_in_all(run, once_each(len(run.users)))
    for _ in range(_MOST_BURSTS):
        measures = (await asyncio.to_thread(workers.measure)).values()
        if all(measure.loops >= THREADS for measure in measures):
            break
        together = 3 * THREADS * len(measures)
        run.scene.tenant.fail("userinfo", Fault.slow(_BURST_SECONDS), times=together)
        users = islice(cycle(run.users), together)
        again = (user.come_again() for user in users)
        await asyncio.gather(*again, return_exceptions=True)  # the run will tell
        await run.scene.connections.begin_anew()  # and spread over the workers anew
    run.scene.seen.clear()


async def _log_in_all(run: Run, turns: list[Turn]) -> None:
    """Have every user take their turns, one after the other."""
    by_user: defaultdict[int, list[Turn]] = defaultdict(list)
    for turn in turns:
        by_user[turn.user].append(turn)
    await asyncio.gather(*(_log_in_one(run, theirs) for theirs in by_user.values()))


async def _log_in_one(run: Run, turns: list[Turn]) -> None:
    user = run.users[turns[0].user]
    for turn in turns:
        if len(run.wrong) >= _TOO_MANY:
            return
        try:
            async with run.at_once:
                await user.take(turn)
        except (Wrong, httpx.HTTPError, ValueError) as error:
            run.wrong.append(f"{user.name}, login {turn.number}: {_words(error)}")
            await user.take_new_browsers()  # what they know may be wrong from here on


def _words(error: Exception) -> str:
    if isinstance(error, httpx.RequestError):
        return f"{error!r} at {error.request.url.copy_with(query=None)}"
    return str(error)


def _growth(points: dict[int, dict[int, Measure]]) -> Iterator[str]:
    """Say what took up more than it may, and which worker is another one."""
    if not points:
        return
    first, *later = points.values()
    for measures in later:
        if measures.keys() != first.keys():
            yield f"workers {list(first)} became {list(measures)}"
            continue
        for pid, measure in measures.items():
            for name, most in vars(MOST_MORE).items():
                before, now = getattr(first[pid], name), getattr(measure, name)
                if now - before > most:
                    yield f"{name} of worker {pid} went from {before:g} to {now:g}"


def _tracebacks(said: str) -> Iterator[str]:
    """Say how many errors nobody expected, with the lines around the first."""
    if number := said.count("Traceback (most recent call last)"):
        at = said.index("Traceback (most recent call last)")
        yield f"{number} tracebacks in the log: {said[max(0, at - 300) : at + 3000]}"


def _print_head(options: argparse.Namespace) -> None:
    kept_in = "Redis" if options.redis else "a SQLite file"
    print(f"Seed {options.seed}; {options.workers} workers with {THREADS} threads;")
    print(f"{options.users} users, {options.at_once} at once; kept in {kept_in}.\n")
    names = ["RSS in MB", "threads", "sockets", "open files", "event loops"]
    print("| After logins |", " | ".join(names), "| 1,000 objects |")
    print("|---|---|---|---|---|---|---|", flush=True)


def _print_row(logins: int, measures: dict[int, Measure]) -> None:
    cells = (_cell(list(measures.values()), each.name) for each in fields(Measure))
    print(f"| {logins:,} |", " | ".join(cells), "|", flush=True)


def _print_counts(run: Run) -> None:
    more = " | ".join(f"+{value:g}" for value in vars(MOST_MORE).values())
    print(f"| more at most | {more} |\n\n| What | How often |\n|---|---|")
    seen, rows = run.scene.seen, ["logins", *Trouble, *Ending]
    for name in [*rows, *sorted(seen.keys() - set(rows))]:
        print(f"| {name} | {seen[name]:,} |")
    rate = seen["logins"] / run.seconds
    print(f"| tried again | {_retried(seen):,} |")
    print(f"| seconds | {run.seconds:.0f} |\n| logins a second | {rate:.1f} |\n")


def _cell(measures: list[Measure], name: str) -> str:
    values = (getattr(measure, name) for measure in measures)
    return " / ".join(f"{v:.1f}" if name == "rss" else f"{v}" for v in values)


def _retried(seen: Counter[str]) -> int:
    failed = sum(seen[kind] for kind in Trouble if kind is not Trouble.ROTATED)
    return failed + seen[OF_OTHERS]


if __name__ == "__main__":
    sys.exit(main())
