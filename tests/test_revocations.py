"""What was ended stays ended: in threads, processes, forks, and through mishaps."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

import auth
from auth0_flask.errors import StoreUnavailable
from auth0_flask.stores import SharedStore, SqliteStore, shared
from auth0_flask.stores.redis import RedisStore, connect
from auth0_flask.stores.shared import Device
from auth0_flask.tenant import Tenant
from conftest import Clock
from redis_server import RedisServer
from servers import free_port, until
from shop import make_shop

LATER = 4_000_000_000.0  # after the birth of any file, and after these tests
END = 5_000_000_000.0
# by default, its second port may be one that a connection has
_CLUSTER = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
FORK = multiprocessing.get_context("fork")

Make = Callable[[], SharedStore]
Log = pytest.LogCaptureFixture
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "instance" / "revocations.sqlite3"


@pytest.fixture
def store(path: Path) -> SqliteStore:
    return SqliteStore(path)


@pytest.fixture(params=["sqlite", "of somebody else", "killed", "redis"])
def make(
    request: pytest.FixtureRequest, path: Path, monkeypatch: pytest.MonkeyPatch
) -> Make:
    """Make stores that share what they know."""
    real = os.utime

    def utime(file: Path, **given: Any) -> None:
        """Set no time of a file of somebody else's, or in a process that is killed."""
        if request.param == "of somebody else" and given:
            raise PermissionError
        if request.param == "killed":
            time.sleep(0.02)  # a file system counts time in ticks
        else:
            real(file, **given)

    if request.param == "redis":
        url = request.getfixturevalue("redis_server").url
        return lambda: RedisStore(connect(url))
    monkeypatch.setattr(os, "utime", utime)
    return lambda: SqliteStore(path)


def in_children(*works: Callable[[], object]) -> list[object]:
    """Return what each answers in a forked child."""

    def run(work: Callable[[], object], answer: Any) -> None:
        answer.put(work())

    answers = [FORK.SimpleQueue() for _ in works]
    both = zip(works, answers, strict=True)
    children = [FORK.Process(target=run, args=each) for each in both]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        child.kill()  # a hung one would hang pytest
        assert child.exitcode == 0
    return [answer.get() for answer in answers]


def test_what_was_noted_is_found_under_its_keys_and_a_token_counts_once(
    make: Make,
) -> None:
    store, together = make(), threading.Barrier(8, timeout=10)
    nobody = store.revoked_at(["id nobody"])

    keys = ["sub |alice", "sid |1", "\0", "\ud800", "'; --"]
    assert store.revoke(keys, at=LATER, until=END, jti="\ud800") is True
    again = make().revoke([*keys, "x"], at=LATER + 9, until=END, jti="\ud800")

    assert again is False
    for key in keys:
        assert make().revoked_at(["id x", key, "all"]) == LATER
        assert store.revoked_at([f"{key}.", "x"]) == store.revoked_at([]) == nobody

    def receive(number: int) -> bool:
        together.wait()
        return store.revoke([f"id {number}"], at=LATER, until=END, jti="at once")

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(receive, range(8))) == 1


def test_the_latest_time_counts_for_the_longest_that_was_asked(make: Make) -> None:
    store, other = make(), make()
    soon = time.time() + 0.3
    store.revoke(["long"], at=LATER - 1, until=soon, jti="j")
    store.revoke(["all", "long"], at=LATER + 2.25, until=END)
    store.revoke(["all", "long"], at=LATER + 1, until=soon)
    store.revoke(["long"], at=LATER - 1, until=soon - 9, jti="past")
    for number in range(3, 23):  # known at the very next look-up
        assert other.revoked_at(["long", "all"]) == LATER + number - 0.75
        store.revoke(["all"], at=LATER + number + 0.25, until=END)
    time.sleep(max(0, soon + 0.05 - time.time()))

    assert store.revoked_at(["long"]) == make().revoked_at(["long"]) == LATER + 2.25
    assert store.revoke(["x"], at=LATER, until=END, jti="j") is True


# Redis alone


def test_redis_keeps_nothing_for_ever_and_names_nobody(
    redis_server: RedisServer, clock: Clock
) -> None:
    client = connect(redis_server.url)
    store = RedisStore(client)
    store.revoke(["sub |alice"], at=LATER, until=END, jti="j")
    for name, seconds in (("long", 1000), ("short", 10), ("next", 100)):
        began = clock.time()
        device = Device(name, "1", "curl", began, began, began + seconds)
        store.register("sub |alice", device)
        clock.forward(15)

    assert [each.id for each in store.devices("sub |alice")] == ["next", "long"]
    (devices,) = client.scan_iter("auth0-flask:devices:*")
    assert client.hlen(devices) == 2
    assert 900 < client.ttl(devices) <= 1001
    (revoked,) = client.scan_iter("auth0-flask:revoked:*")
    (seen,) = client.scan_iter("auth0-flask:seen:*")
    for key in (revoked, seen):
        assert client.expiretime(key) == pytest.approx(END, abs=1)
    assert not any(b"alice" in key for key in client.scan_iter())


def test_a_call_that_is_sent_again_is_no_replay(redis_server: RedisServer) -> None:
    store: Any = RedisStore(connect(redis_server.url))
    script = store._revoke
    store._revoke = lambda *a: (script(*a), script(*a))[1]  # an answer is lost

    assert store.revoke(["all"], at=LATER, until=END, jti="j") is True
    assert store.revoke(["all"], at=LATER, until=END, jti="j") is False


@pytest.mark.parametrize("own_redis", [_CLUSTER], indirect=True)
def test_a_redis_cluster_is_found_by_the_check(own_redis: RedisServer) -> None:
    own_redis.say("CLUSTER ADDSLOTSRANGE 0 16383")
    while b"cluster_state:ok" not in own_redis.say("CLUSTER INFO"):
        time.sleep(0.05)

    with pytest.raises(StoreUnavailable) as found:
        RedisStore(connect(own_redis.url)).problems()
    assert "Keys in request don't hash to the same" in str(found.value.__cause__)


def test_what_is_no_client_of_redis_for_sync_code_is_refused_by_name(
    tenant: Tenant,
) -> None:
    for wrong in (redis.asyncio.Redis(), "redis://localhost:6379/0"):
        with pytest.raises(TypeError, match=r"takes a redis\.Redis, not a redis\.asyn"):
            make_shop(auth, redis=wrong)


# The SQLite file


def test_the_check_makes_files_of_their_owner_and_older_sessions_are_over(
    path: Path, store: SqliteStore
) -> None:
    """Else an operator's command may make them, and they would be root's."""
    before = time.time()
    store.check()
    born = store.revoked_at([])
    assert before <= born <= time.time()

    store.revoke(["sub |auth0|alice"], at=1.0, until=END, jti="a token")
    for _ in range(20):
        store.check()
    for each in (store, SqliteStore(path)):
        assert each.revoked_at(["sub |auth0|alice", "id b"]) == born

    left = {file.name: file for file in path.parent.iterdir()}
    assert left.keys() == {path.name, f"{path.name}-cache"}  # and no log
    for file in left.values():
        assert file.stat().st_mode & 0o777 == 0o600
        assert b"alice" not in file.read_bytes()
        assert b"a token" not in file.read_bytes()


def test_what_is_past_is_removed_and_the_file_shrinks_again(
    path: Path, store: SqliteStore, clock: Clock
) -> None:
    store.revoke(["first"], at=LATER, until=END)
    first = path.stat().st_size
    keys = [f"id {number}" for number in range(20_000)]
    store.revoke(keys, at=LATER, until=clock.time() + 3600, jti="j")
    assert store.revoked_at(keys[:3]) == LATER

    clock.forward(3601)
    later = SqliteStore(path)
    later.revoke(["one more"], at=LATER, until=END)

    assert path.stat().st_size <= first + 8 * 4096
    assert later.revoked_at(keys[:3]) == later.revoked_at(["nobody"])
    assert later.revoked_at(["one more"]) == later.revoked_at(["first"]) == LATER


def test_an_unreadable_cache_is_made_anew(path: Path, store: SqliteStore) -> None:
    store.keep_result("before", "1", 60)
    cache = path.with_name(f"{path.name}-cache")
    cache.unlink()
    assert store.result("before") is None
    cache.write_bytes(b"x" * 5_000)

    with suppress(StoreUnavailable):  # at the first use it is noticed
        store.keep_result("after", "2", 60)
    store.keep_result("after", "3", 60)
    assert store.result("after") == "3"


# Many processes


def test_processes_threads_and_forks_at_once_make_one_file_and_lose_nothing(
    path: Path, store: SqliteStore
) -> None:
    together, enough = FORK.Barrier(5, timeout=30), threading.Event()

    def write(name: str, times: float = float("inf")) -> list[str]:
        keys: list[str] = []
        while not enough.is_set() and len(keys) < times:
            keys.append(f"{name} {len(keys)}")
            store.revoke(keys[-1:], at=LATER, until=END, jti=keys[-1])
            assert store.revoked_at(keys[-1:]) == LATER
        return keys

    def child(name: str) -> Any:
        inherited = path in [file.resolve() for file in Path("/proc/self/fd").iterdir()]
        together.wait()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: store.check(), range(4)))
            births = set(pool.map(lambda _: store.revoked_at([]), range(4)))
        return inherited, births, write(name, 10)

    def in_five(name: str) -> list[str]:
        found: Any = in_children(*[partial(child, f"{name} {n}") for n in range(5)])
        assert [each[:2] for each in found] == [(False, {store.revoked_at([])})] * 5
        return [key for *_, keys in found for key in keys]

    keys = in_five("without a file")
    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(write, f"thread {n}") for n in range(3)]
        try:
            for number in range(3):
                keys += in_five(f"fork {number}")
        finally:
            enough.set()
        keys += [key for thread in writing for key in thread.result()]

    assert {store.revoked_at([key]) for key in keys} == {LATER}


def test_a_forked_child_tries_on_what_it_could_not_write(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_RETRY_SECONDS", 0.05)
    path.parent.write_text("in the way")
    with pytest.raises(StoreUnavailable):
        store.revoke_eventually(["a"], until=END)

    def child() -> object:
        with pytest.raises(StoreUnavailable):
            store.revoke_eventually(["b"], until=END)
        path.parent.unlink()
        until(lambda: SqliteStore(path).revoked_at(["b"]) == END)
        return True

    assert in_children(child) == [True]


# Mishaps


@pytest.mark.parametrize("there", ["none", "another", "a copy"])
def test_a_deleted_or_replaced_file_ends_older_sessions_in_every_process_at_once(
    path: Path, store: SqliteStore, caplog: Log, there: str
) -> None:
    backup, other = SqliteStore(path.with_name("backup")), SqliteStore(path)
    for number in range(30):
        store.revoke([f"known {number}"], at=LATER, until=END)
    if there == "a copy":
        shutil.copy(path, backup.path)
    if there == "another":
        backup.revoke(["known 1"], at=LATER, until=END)
    store.revoke(["lacking"], at=LATER, until=END)
    assert other.revoked_at(["lacking"]) == store.revoked_at(["lacking"]) == LATER
    signed_in_at = time.time()
    path.unlink() if there == "none" else Path(backup.path).rename(path)

    with ThreadPoolExecutor(8) as pool:
        (born,) = set(pool.map(lambda _: store.revoked_at(["lacking"]), range(8)))
    (told,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert f"{path} was deleted or replaced" in told
    assert (signed_in_at <= born) is (there != "another")
    assert other.revoked_at(["lacking"]) == born < LATER
    known = born if there == "none" else LATER
    assert other.revoked_at(["known 1"]) == store.revoked_at(["known 1"]) == known
    store.revoke(["new"], at=LATER, until=END)
    assert other.revoked_at(["new"]) == store.revoked_at(["new"]) == LATER


def test_what_ended_is_on_the_disk_and_in_the_file_that_is_there(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a backup takes the file's place meanwhile, the caller has to try again."""
    backup, heard = path.with_name("backup"), list[str]()
    for each in (path, backup):
        SqliteStore(each).check()
    connect: Any = sqlite3.connect

    def hear(statement: str) -> None:
        heard.append(statement)
        if statement == "COMMIT":
            monkeypatch.undo()
            backup.rename(path)

    def overheard(*given: Any, **options: Any) -> Any:
        opened = connect(*given, **options)
        opened.set_trace_callback(hear)
        return opened

    monkeypatch.setattr(sqlite3, "connect", overheard)
    with pytest.raises(StoreUnavailable):
        store.revoke(["a"], at=LATER, until=END)
    store.revoke(["a"], at=LATER, until=END)

    assert SqliteStore(path).revoked_at(["a"]) == LATER
    before = heard[: heard.index("COMMIT")]
    assert [x for x in before if "synchronous" in x] == ["PRAGMA synchronous=EXTRA"]


def test_a_file_of_version_1_that_its_workers_still_use(
    path: Path, store: SqliteStore
) -> None:
    """What version 1.0 ended stays ended, and nobody is signed out."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as version_1:
        version_1.executescript(
            """
            PRAGMA auto_vacuum=FULL; PRAGMA journal_mode=WAL;
            CREATE TABLE ended
            (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, at REAL, until REAL);
            CREATE TABLE birth (at REAL); INSERT INTO birth VALUES (1000.0);
            """
        )
        insert = "INSERT INTO ended (key, at, until) VALUES (?, ?, ?)"
        for key in ("a", "b"):
            row = sha256(key.encode()).hexdigest(), LATER, END
            version_1.execute(insert, row)
            assert store.revoked_at([key]) == LATER
        store.revoke(["c"], at=LATER, until=END)
        assert SqliteStore(path).revoked_at(["c"]) == LATER

    assert store.revoked_at(["a"]) == LATER
    assert store.revoked_at(["d"]) == 1000.0
    store.revoke(["d"], at=LATER, until=END)
    assert store.revoked_at(["d"]) == LATER
