"""Many logins, many of them disturbed; ``python -m bench.soak --help``.

Linux only: what the workers take up is read from ``/proc``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

import httpx

from tenant import Fault, Tenant

from .soak_plan import Ending, Trouble, Turn, phases, plan
from .soak_server import THREADS, Measure, RedisServer, Workers, free_port, serving
from .soak_trouble import Aim, Disk, Outage
from .soak_visitors import Scene, User, Wrong

#: What a worker may take up more than after the first tenth of the logins. A pool
#: may grow to one connection, or loop, for each thread; a leak knows no bound.
MOST_MORE = Measure(rss=12, threads=THREADS, sockets=THREADS, files=THREADS, loops=2)
_TOO_MANY = 20
_WARM_UP_SECONDS = 0.5
_UNLIMITED = httpx.Limits(max_connections=None)


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
    print(f"Seed {options.seed}.", flush=True)
    with _stage(options) as (workers, scene):
        run = asyncio.run(_soak(options, workers, scene))
        run.wrong += _growth(run.points)
        run.wrong += _tracebacks(workers.said())
    _print_table(options, run)
    for words in run.wrong[:_TOO_MANY]:
        print(f"WRONG: {words}")
    print(f"{len(run.wrong)} wrong." if run.wrong else "Nothing wrong.")
    return 1 if run.wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
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
        site = f"http://localhost:{port}"
        asyncio.run(_warm_up(tenant, site, THREADS * options.workers))
        aim = Aim(tenant, options.logins)
        yield workers, Scene(site, tenant, aim, outage)


async def _soak(options: argparse.Namespace, workers: Workers, scene: Scene) -> Run:
    users = [User(scene, number) for number in range(options.users)]
    run = Run(scene, users, asyncio.Semaphore(options.at_once))
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
    for user in users:
        await user.close()
    return run


async def _warm_up(tenant: Tenant, site: str, threads: int) -> None:
    """Have all threads of all workers at work at once, as no short run would."""
    tenant.fail("discovery", Fault.slow(_WARM_UP_SECONDS), times=threads)
    async with httpx.AsyncClient(timeout=30, limits=_UNLIMITED) as http:
        asked = (http.get(f"{site}/login") for _ in range(4 * threads))
        await asyncio.gather(*asked)
    tenant.clear_faults()


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
            words = str(error) or type(error).__name__
            run.wrong.append(f"{user.name}, login {turn.number}: {words}")
            user.take_new_browsers()  # what they know may be wrong from here on


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


def _print_table(options: argparse.Namespace, run: Run) -> None:
    seen, store = run.scene.seen, "Redis" if options.redis else "a SQLite file"
    rate = seen["logins"] / run.seconds
    print(f"\n{options.workers} workers with {THREADS} threads, {store};", end=" ")
    print(f"{options.users} users, {options.at_once} at once.\n")
    print("| What | How often |\n|---|---|")
    rows = ["logins", *Trouble, *Ending]
    for name in [*rows, *sorted(seen.keys() - set(rows))]:
        print(f"| {name} | {seen[name]:,} |")
    print(f"| tried again | {_retried(seen):,} |")
    print(f"| seconds | {run.seconds:.0f} |\n| logins a second | {rate:.1f} |\n")
    names = ["RSS in MB", "threads", "sockets", "open files", "event loops"]
    print("| After logins |", " | ".join(names), "|\n|---|---|---|---|---|---|")
    for logins, measures in run.points.items():
        cells = (_cell(list(measures.values()), f.name) for f in fields(Measure))
        print(f"| {logins:,} |", " | ".join(cells), "|")
    more = " | ".join(f"+{value:g}" for value in vars(MOST_MORE).values())
    print(f"| at most | {more} |\n")


def _cell(measures: list[Measure], name: str) -> str:
    values = (getattr(measure, name) for measure in measures)
    return " / ".join(f"{v:.1f}" if name == "rss" else f"{v}" for v in values)


def _retried(seen: Counter[str]) -> int:
    failed = sum(seen[kind] for kind in Trouble if kind is not Trouble.ROTATED)
    return failed + seen["logins that met the trouble of others"]


if __name__ == "__main__":
    sys.exit(main())
