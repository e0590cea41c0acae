"""What was ended stays ended: in threads, processes, forks, and through mishaps."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
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
from auth0_flask.stores import SharedStore, SqliteStore, revocations, shared
from auth0_flask.stores.redis import RedisStore, connect
from auth0_flask.tenant import Tenant
from conftest import Clock
from redis_server import RedisServer
from servers import ROOT, free_port
from shop import copy_of_auth, make_shop
from visitor import Shopper

LATER = 4_000_000_000.0  # after the birth of any file, and after these tests
END = 5_000_000_000.0

Make = Callable[[], SharedStore]
forks = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "instance" / "revocations.sqlite3"


@pytest.fixture
def store(path: Path) -> SqliteStore:
    return SqliteStore(path)


@pytest.fixture(params=["sqlite", "redis"])
def make(request: pytest.FixtureRequest, path: Path) -> Make:
    """Make stores that share what they know."""
    if request.param == "sqlite":
        return lambda: SqliteStore(path)
    url = request.getfixturevalue("redis_server").url
    return lambda: RedisStore(connect(url))


def test_what_was_noted_is_found_under_its_keys_and_no_other(make: Make) -> None:
    store = make()
    store.check()
    nobody = store.revoked_at(["id nobody"])

    assert store.revoke(["sub |alice", "sid |1"], at=LATER, until=END) is True

    assert store.revoked_at(["sub |alice"]) == LATER
    assert store.revoked_at(["id x", "sid |1", "all"]) == LATER
    assert store.revoked_at(["sub |bob", "id x"]) == nobody
    assert store.revoked_at([]) == nobody
    assert store.revoke([], at=LATER, until=END) is True


def test_the_latest_of_several_times_counts_and_none_is_lowered(make: Make) -> None:
    store = make()
    store.revoke(["all"], at=LATER + 2.25, until=END)
    store.revoke(["all", "id a"], at=LATER + 1.125, until=END)

    assert store.revoked_at(["id a"]) == LATER + 1.125
    assert store.revoked_at(["id a", "all"]) == LATER + 2.25


def test_a_token_counts_once_and_a_replay_changes_nothing(make: Make) -> None:
    store = make()
    nobody = store.revoked_at(["id nobody"])

    assert store.revoke(["sid |1"], at=LATER, until=END, jti="j") is True
    assert make().revoke(["sid |1", "x"], at=LATER + 9, until=END, jti="j") is False

    assert store.revoked_at(["sid |1"]) == LATER
    assert store.revoked_at(["x"]) == nobody
    assert store.revoke(["sid |1"], at=LATER + 9, until=END, jti="i") is True


def test_of_the_same_token_many_times_at_once_one_counts(make: Make) -> None:
    store, together = make(), threading.Barrier(8, timeout=10)

    def receive(number: int) -> bool:
        together.wait()
        return store.revoke([f"id {number}"], at=LATER, until=END, jti="the one")

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(receive, range(8))) == 1


def test_each_is_kept_for_the_longest_that_was_asked(make: Make) -> None:
    store = make()
    soon = time.time() + 0.5
    store.revoke(["long"], at=LATER - 1, until=soon, jti="j")
    store.revoke(["long"], at=LATER, until=END)
    store.revoke(["long"], at=LATER - 1, until=soon)
    store.revoke(["long"], at=LATER - 1, until=soon - 9, jti="past")
    time.sleep(0.6)

    assert store.revoked_at(["long"]) == make().revoked_at(["long"]) == LATER
    assert store.revoke(["x"], at=LATER, until=END, jti="j") is True


@pytest.mark.parametrize("key", ["", "\0", "\ud800", "ключ", "x" * 100_000, "'; --"])
def test_any_text_is_a_key(make: Make, key: str) -> None:
    store = make()
    store.revoke([key], at=LATER, until=END, jti=key)

    assert store.revoked_at([key]) == LATER
    assert store.revoked_at([f"{key}."]) < LATER
    assert store.revoke([key], at=LATER, until=END, jti=key) is False


def test_another_store_knows_at_once(make: Make) -> None:
    one, other = make(), make()
    other.revoked_at(["all"])
    for number in range(20):
        one.revoke(["all"], at=LATER + number, until=END)
        assert other.revoked_at(["all"]) == LATER + number


def test_a_store_of_one_process_takes_everything_and_knows_nothing() -> None:
    store = SharedStore()
    store.check()

    assert store.revoke(["all"], at=LATER, until=END, jti="j") is True
    assert store.revoke(["all"], at=LATER, until=END, jti="j") is True
    assert store.revoked_at(["all"]) == 0.0


# Redis alone


def test_redis_is_asked_once_and_keeps_nothing_for_ever(
    redis_server: RedisServer,
) -> None:
    client = connect(redis_server.url)
    store = RedisStore(client)
    store.revoke(["sub |alice"], at=LATER, until=END, jti="j")
    redis_server.say("CONFIG RESETSTAT")
    store.revoked_at(["a", "b", "c"])
    store.revoke(["sub |alice", "b"], at=LATER, until=END, jti="k")

    calls = client.info("commandstats")
    assert calls["cmdstat_mget"]["calls"] == calls["cmdstat_evalsha"]["calls"] == 1
    for found in client.scan_iter():
        name = found.decode() if isinstance(found, bytes) else found
        assert name.startswith(("auth0-flask:revoked:", "auth0-flask:seen:"))
        assert "alice" not in name
        assert client.expiretime(name) == pytest.approx(END, abs=1)


def test_a_call_that_redis_py_sends_again_is_no_replay(
    redis_server: RedisServer,
) -> None:
    class LosesAnAnswer(RedisStore):
        def __init__(self) -> None:
            super().__init__(connect(redis_server.url))
            script = self._revoke
            self._revoke = lambda *a: (script(*a), script(*a))[1]  # type: ignore

    store = LosesAnAnswer()

    assert store.revoke(["all"], at=LATER, until=END, jti="j") is True
    assert store.revoke(["all"], at=LATER, until=END, jti="j") is False


def test_redis_away_is_told_and_does_not_stop_the_start() -> None:
    store = RedisStore(connect(f"redis://127.0.0.1:{free_port()}/0"))
    store.check()

    with pytest.raises(StoreUnavailable) as told:
        store.revoked_at(["all"])
    assert told.value.code == 503
    with pytest.raises(StoreUnavailable):
        store.revoke(["all"], at=LATER, until=END)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server of this test's own, that it may spoil."""
    server = RedisServer(tmp_path).start()
    yield server
    server.kill()


@pytest.mark.parametrize(
    ("spoil", "reason", "is_unusable"),
    [
        ("REPLICAOF 127.0.0.1 1", "read only replica", False),
        ("CONFIG SET maxmemory 1", "command not allowed when used memory", False),
        ("ACL SETUSER default resetkeys ~other:*", "no permissions to access", True),
        ("ACL SETUSER default -eval -evalsha", "no permissions to run", True),
        ("CONFIG SET maxmemory-policy allkeys-lru", "Set it to noeviction", False),
    ],
    ids=str,
)
def test_redis_that_cannot_do_what_the_app_needs_is_found_by_the_check(
    tenant: Tenant,
    own_redis: RedisServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    spoil: str,
    reason: str,
    *,
    is_unusable: bool,
) -> None:
    shop = make_shop(auth, redis=connect(own_redis.url))
    shop.add_url_rule("/me", view_func=lambda: str(auth.auth_user.get("sub")))
    run = shop.test_cli_runner().invoke
    good = run(args=["auth0", "check"]).output
    assert "ok       store: Redis, for all machines that share it" in good
    client = shop.test_client()
    auth.login_as(client)

    assert own_redis.say(spoil) == b"+OK\r\n"
    found = run(args=["auth0", "check"])

    (line,) = [x for x in found.output.splitlines() if reason in x]
    assert line.startswith("wrong    ")
    assert found.exit_code == 1
    monkeypatch.setattr(StoreUnavailable, "_logged_at", {})
    caplog.clear()
    pages = [client.get("/me").status_code for _ in range(3)]
    assert pages == [503 if is_unusable else 200] * 3
    assert len(_errors(caplog)) == is_unusable  # once a minute
    assert not is_unusable or reason in caplog.text


@pytest.mark.parametrize(
    ("serves", "reason"),
    [
        ("PING", "Hash slot not served"),
        (
            "CLUSTER ADDSLOTSRANGE 0 16383",
            "Keys in request don't hash to the same slot",
        ),
    ],
)
def test_a_node_of_a_redis_cluster_is_found_by_the_check(
    tenant: Tenant, tmp_path: Path, serves: str, reason: str
) -> None:
    node = RedisServer(tmp_path, "--cluster-enabled", "yes").start()
    node.say(serves)
    while serves != "PING" and b"cluster_state:ok" not in node.say("CLUSTER INFO"):
        time.sleep(0.05)
    shop = make_shop(auth, redis=connect(node.url))

    found = shop.test_cli_runner().invoke(args=["auth0", "check"])

    node.kill()
    assert f"cannot be used: {reason}" in found.output
    assert found.exit_code == 1


@pytest.mark.parametrize(
    "wrong", [redis.asyncio.Redis(), "redis://localhost:6379/0"], ids=["async", "url"]
)
def test_what_is_no_client_of_redis_for_sync_code_is_refused_by_name(
    tenant: Tenant, wrong: object
) -> None:
    with pytest.raises(TypeError, match=r"takes a redis\.Redis, not a redis\.asyncio"):
        make_shop(auth, redis=wrong)


def test_the_check_says_that_a_file_is_for_one_machine(tenant: Tenant) -> None:
    found = make_shop(auth).test_cli_runner().invoke(args=["auth0", "check"])

    file = f"the file {os.environ['AUTH0_REVOCATIONS_PATH']}"
    assert f"store: {file}, for one machine; several need Redis" in found.output


def test_redis_need_not_be_installed() -> None:
    script = "import sys; sys.modules['redis'] = None; import auth0_flask.cli"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


# The SQLite file


def test_the_file_is_its_owners_only_and_names_nobody(
    path: Path, store: SqliteStore
) -> None:
    store.check()
    store.revoke(["sub |auth0|alice"], at=LATER, until=END, jti="a token")

    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
        assert b"alice" not in file.read_bytes()
        assert b"a token" not in file.read_bytes()


def test_a_check_makes_the_file_or_tells_that_it_cannot_be_written(
    path: Path, store: SqliteStore
) -> None:
    """Else an operator's command may, and the app could not open what is root's."""
    store.check()
    assert path.stat().st_size

    born = store.revoked_at([])
    for _ in range(20):
        store.check()
    assert SqliteStore(path).revoked_at([]) == born


def test_what_ended_is_on_the_disk_before_it_is_said_to_be(path: Path) -> None:
    script = """
        import sqlite3
        said, connect = [], sqlite3.connect
        def traced(*arguments, **options):
            opened = connect(*arguments, **options)
            opened.set_trace_callback(said.append)
            return opened
        store.check()
        sqlite3.connect = traced
        store.revoke(["a"], at=LATER, until=END)
        print(*said, sep="\\n")
    """
    lines = _result(_start(script, path)).splitlines()

    before = lines[: lines.index("COMMIT")]
    assert "PRAGMA synchronous=EXTRA" in before
    assert sum("synchronous" in line for line in before) == 1


def test_sessions_older_than_the_file_are_over(store: SqliteStore) -> None:
    before = time.time()
    store.check()
    born = store.revoked_at([])

    assert before <= born <= time.time()
    store.revoke(["id a"], at=1.0, until=END)
    assert store.revoked_at(["id a", "id b"]) == born


def test_what_is_past_is_removed_and_the_file_shrinks_again(
    path: Path, store: SqliteStore, clock: Clock
) -> None:
    store.revoke(["first"], at=LATER, until=END)
    first = path.stat().st_size
    keys = [f"id {number}" for number in range(100_000)]
    store.revoke(keys, at=LATER, until=clock.time() + 3600, jti="j")
    assert store.revoked_at(keys[:3]) == LATER

    clock.forward(3601)
    later = SqliteStore(path)
    later.revoke(["one more"], at=LATER, until=END)

    assert path.stat().st_size <= first + 8 * 4096
    assert later.revoked_at(keys[:3]) == later.revoked_at(["nobody"])
    assert later.revoked_at(["one more"]) == later.revoked_at(["first"]) == LATER


# Many processes


def _start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process that has a store at the path that comes first."""
    head = """
        import json, os, sys, threading, time
        from auth0_flask.stores import SqliteStore
        store = SqliteStore(sys.argv[1])
        LATER, END = 4e9, 5e9
    """
    code = textwrap.dedent(head) + textwrap.dedent(script)
    return subprocess.Popen(
        [
            *(sys.executable, "-W", "always::ResourceWarning", "-c", code),
            *map(str, arguments),
        ],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _result(process: subprocess.Popen[str]) -> str:
    with process:
        out, err = process.communicate(timeout=60)
    assert err == ""
    assert process.returncode == 0
    return out


def test_processes_and_threads_that_make_the_file_at_once_make_one(path: Path) -> None:
    script = """
        from concurrent.futures import ThreadPoolExecutor
        print("ready", flush=True); sys.stdin.read(1)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: store.check(), range(4)))
            store.revoke([sys.argv[2]], at=LATER, until=END)
            births = set(pool.map(lambda _: store.revoked_at([]), range(4)))
        print(json.dumps(sorted(births)))
    """
    processes = [_start(script, path, name) for name in range(6)]
    for process in processes:
        assert process.stdout
        process.stdout.readline()
    for process in processes:
        assert process.stdin
        process.stdin.write("!")
        process.stdin.flush()

    assert len({_result(process) for process in processes}) == 1
    store = SqliteStore(path)
    assert all(store.revoked_at([str(name)]) == LATER for name in range(6))


def test_what_eight_processes_note_at_once_is_all_there(
    path: Path, store: SqliteStore
) -> None:
    script = """
        for number in range(50):
            key = f"{sys.argv[2]} {number}"
            assert store.revoke([key], at=LATER, until=END, jti=key)
    """
    for process in [_start(script, path, name) for name in range(8)]:
        _result(process)

    for name in range(8):
        for number in range(50):
            assert store.revoked_at([f"{name} {number}"]) == LATER


def test_what_a_killed_process_had_noted_is_there(
    path: Path, store: SqliteStore
) -> None:
    script = """
        for number in range(10**9):
            store.revoke([str(number)], at=LATER, until=END)
            print(number, flush=True)
    """
    with _start(script, path) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(50)]
        process.kill()
        lines += process.stdout.readlines()

    for line in lines:
        if line.endswith("\n"):
            assert store.revoked_at([line.strip()]) == LATER


def test_threads_that_want_it_at_once_all_have_it(path: Path) -> None:
    for turn in range(20):
        store, together = SqliteStore(path), threading.Barrier(16, timeout=10)

        def look(_: int, store: SqliteStore, together: threading.Barrier) -> bool:
            together.wait()
            return store.revoked_at(["a"]) < LATER

        with ThreadPoolExecutor(16) as pool:
            seen = pool.map(partial(look, store=store, together=together), range(16))
            assert all(seen), turn


def test_a_log_that_asks_it_from_another_thread_waits_and_goes_on(
    path: Path, store: SqliteStore
) -> None:
    """Logging holds a lock of its own, so whoever asks there may not wait for ever."""
    in_time: list[bool] = []

    class Asking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            thread = threading.Thread(target=store.revoked_at, args=["a"], daemon=True)
            thread.start()
            thread.join(5)
            in_time.append(not thread.is_alive())

    store.revoked_at(["a"])
    path.unlink()
    handler = Asking()
    logging.getLogger("auth0_flask").addHandler(handler)
    try:
        store.revoked_at(["a"])
    finally:
        logging.getLogger("auth0_flask").removeHandler(handler)

    assert in_time == [True]


def test_what_a_process_did_not_live_to_tell_of_is_known_all_the_same(
    path: Path, store: SqliteStore
) -> None:
    assert store.revoked_at(["a"]) < LATER
    time.sleep(0.02)  # a file system counts time in ticks
    _result(
        _start(
            """
            os.utime = lambda *_, **__: None  # as if it was killed before
            store.revoke(["a"], at=LATER, until=END)
            """,
            path,
        )
    )

    assert store.revoked_at(["a"]) == LATER


def test_what_another_process_ended_is_known_at_the_very_next_look_up(
    path: Path, store: SqliteStore
) -> None:
    script = """
        for line in sys.stdin:
            store.revoke([line.strip()], at=LATER, until=END)
            print("done", flush=True)
    """
    with _start(script, path) as other:
        assert other.stdin
        assert other.stdout
        for number in range(100):
            assert store.revoked_at([str(number)]) < LATER
            other.stdin.write(f"{number}\n")
            other.stdin.flush()
            other.stdout.readline()
            assert store.revoked_at([str(number)]) == LATER
        other.communicate()


@forks
def test_a_file_of_somebody_elses_is_read_and_written_all_the_same(
    anybodys: Path,
) -> None:
    """Who may not set the time of a file has it set by the coarse clock."""
    path = anybodys / "revocations.sqlite3"
    store = SqliteStore(path)
    store.check()
    path.chmod(0o666)

    def somebody() -> object:
        one, other = SqliteStore(path), SqliteStore(path)
        missed = []
        for number in range(100):
            other.revoked_at(["a"])
            one.revoke([f"id {number}"], at=LATER, until=END)
            if other.revoked_at([f"id {number}"]) != LATER:
                missed.append(number)
        return missed

    assert store.revoked_at(["id 1"]) < LATER
    assert in_a_child(somebody, as_user=65534) == []
    assert store.revoked_at(["id 1"]) == store.revoked_at(["id 99"]) == LATER


def test_a_process_that_used_it_ends_at_once_and_leaves_no_log(path: Path) -> None:
    _result(_start("store.check(); print(store.revoked_at(['all']))", path))

    cache = f"{path.name}-cache"
    left = {file.name: file.stat().st_size for file in path.parent.iterdir()}
    assert left.keys() == {path.name, cache, f"{cache}-journal"}
    assert not left[f"{cache}-journal"]


def test_devices_in_redis_stay_as_long_as_each_lasts(
    redis_server: RedisServer, clock: Clock
) -> None:
    client = connect(redis_server.url)
    store, key = RedisStore(client), f"auth0-flask:devices:{shared.digest('carol')}"
    for name, seconds in (("long", 1000), ("short", 10), ("next", 100)):
        began = clock.time()
        device = shared.Device(name, "1", "curl", began, began, began + seconds)
        store.register("carol", device)
        assert client.ttl(key) > 900
        clock.forward(15)

    assert [device.id for device in store.devices("carol")] == ["next", "long"]
    assert client.hlen(key) == 2
    client.close()


@pytest.mark.parametrize("way", ["/logout/everywhere", "/backchannel-logout"])
def test_what_may_be_lost_is_not_needed_to_end_sessions(
    way: str, path: Path, tenant: Tenant
) -> None:
    shop = make_shop(copy_of_auth({"AUTH0_REVOCATIONS_PATH": str(path)}))
    shop.add_url_rule("/me", "me", auth.login_required(lambda: "open"))
    alice = Shopper(shop)
    alice.login()
    copied, cache = alice.twin(), path.with_name(f"{path.name}-cache")
    cache.unlink()
    cache.mkdir()  # nothing can be read

    form = {"logout_token": tenant.logout_token(sub="auth0|alice", sid=None)}
    origin = {"Origin": "http://localhost"}
    answer = alice.client.post(way, data=form, headers=origin)

    assert answer.status_code < 400
    assert copied.client.get("/me").status_code == 302


@pytest.mark.parametrize("other", ["none", "without tables", "no database"])
def test_a_cache_that_cannot_be_read_is_made_anew(
    path: Path, store: SqliteStore, other: str
) -> None:
    store.keep_result("before", "1", 60)
    cache = path.with_name(f"{path.name}-cache")
    cache.unlink()
    if other == "without tables":
        with closing(sqlite3.connect(cache)) as made:
            made.execute("CREATE TABLE of_somebody_else (a)")
    if other == "no database":
        cache.write_bytes(b"x" * 5_000)

    with suppress(StoreUnavailable):  # at the first use it is noticed
        store.keep_result("after", "2", 60)
    store.keep_result("after", "3", 60)

    assert store.result("after") == "3"
    assert store.result("before") is None


# Forks


def in_a_child(work: Callable[[], object], *, as_user: int | None = None) -> object:
    """Return what work answers in a forked child, possibly as somebody else."""
    answers = multiprocessing.get_context("fork").SimpleQueue()

    def run() -> None:
        if as_user is not None and os.getuid() == 0:
            os.setgid(as_user)
            os.setuid(as_user)
        answers.put(work())

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join(30)
    child.kill()  # a hung one would hang pytest
    assert child.exitcode == 0
    return answers.get()


def _open_files_of(path: Path) -> int:
    """Count this process's file descriptors of the file."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sum(os.path.lexists(x) and os.readlink(x) == str(path) for x in links)


@forks
def test_a_forked_child_has_none_of_its_parents_connections(
    path: Path, store: SqliteStore
) -> None:
    store.revoke(["a"], at=LATER, until=END)

    def child() -> object:
        inherited = _open_files_of(path)
        store.revoke(["b"], at=LATER, until=END)
        return inherited, store.revoked_at(["a"]), store.revoked_at(["b"])

    assert in_a_child(child) == (0, LATER, LATER)
    assert store.revoked_at(["b"]) == LATER


@forks
def test_forks_while_other_threads_write_lose_nothing(
    path: Path, store: SqliteStore
) -> None:
    enough, written = threading.Event(), [0, 0, 0]

    def write(thread: int) -> None:
        while not enough.is_set():
            key = f"{thread} {written[thread]}"
            store.revoke([key], at=LATER, until=END)
            assert store.revoked_at([key]) == LATER
            written[thread] += 1

    def child(number: int) -> object:
        inherited = _open_files_of(path)
        return inherited, store.revoke([f"child {number}"], at=LATER, until=END)

    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(write, thread) for thread in range(3)]
        try:
            answers = [in_a_child(partial(child, number)) for number in range(15)]
        finally:
            enough.set()
        for thread in writing:
            thread.result()

    assert answers == [(0, True)] * 15
    keys = [f"{thread} {n}" for thread in range(3) for n in range(written[thread])]
    for key in keys + [f"child {number}" for number in range(15)]:
        assert store.revoked_at([key]) == LATER


@forks
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
        give_up = time.monotonic() + 5
        while (at := SqliteStore(path).revoked_at(["b"])) < END:
            assert time.monotonic() < give_up
            time.sleep(0.02)
        return at

    assert in_a_child(child) == END


# Mishaps


def _errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]


ASKS = """
    for line in sys.stdin:
        print(json.dumps(store.revoked_at([line.strip()])), flush=True)
"""


def _ask(process: subprocess.Popen[str], key: str) -> float:
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{key}\n")
    process.stdin.flush()
    return float(json.loads(process.stdout.readline()))


def test_a_deleted_file_is_noticed_by_every_process_at_once(
    path: Path, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.revoke(["a"], at=LATER, until=END)
    with _start(ASKS, path) as other:
        assert _ask(other, "a") == store.revoked_at(["a"]) == LATER
        signed_in_at = time.time()
        path.unlink()

        born = store.revoked_at(["a"])
        assert signed_in_at <= born < LATER
        assert _ask(other, "a") == born
        store.revoke(["b"], at=LATER, until=END)
        assert _ask(other, "b") == LATER
        _, err = other.communicate()
        assert err.count("was deleted or replaced") == 1

    assert store.revoked_at(["b"]) == LATER
    assert len(_errors(caplog)) == 1
    assert str(path) in _errors(caplog)[0]
    assert _is_sound(path)


def _is_sound(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
    return found == [("ok",)]


def test_threads_that_notice_at_once_say_it_once(
    path: Path, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    together = threading.Barrier(8, timeout=10)

    def look_up(turn: int) -> float:
        together.wait()
        return store.revoked_at(["all"])

    with ThreadPoolExecutor(8) as pool:
        for turn in range(10):
            assert len(set(pool.map(look_up, range(8)))) == 1
            assert len(_errors(caplog)) == turn
            shutil.rmtree(path.parent)


def test_a_replaced_file_is_noticed_and_not_mixed_with_the_old_one(
    path: Path, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(30):
        store.revoke([f"old {number}"], at=LATER, until=END)
    with _start(ASKS, path) as other:
        assert _ask(other, "old 1") == store.revoked_at(["old 1"]) == LATER
        backup = SqliteStore(path.with_name("backup"))
        backup.revoke(["new"], at=LATER, until=END)
        born = backup.revoked_at([])
        path.with_name("backup").rename(path)

        for look_up in (store.revoked_at, lambda keys: _ask(other, keys[0])):
            assert look_up(["new"]) == LATER
            assert look_up(["old 1"]) == born
        store.revoke(["newer"], at=LATER, until=END)
        assert _ask(other, "newer") == LATER
        other.communicate()

    assert store.revoked_at(["newer"]) == LATER
    assert len(_errors(caplog)) == 1
    assert _is_sound(path)


def test_a_copy_of_an_older_file_may_lack_logouts_so_older_sessions_are_over(
    path: Path, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.revoke(["known"], at=LATER, until=END)
    shutil.copy(path, path.with_name("backup"))
    store.revoke(["lacking"], at=LATER, until=END)
    assert store.revoked_at(["lacking"]) == LATER
    copied_at = time.time()
    path.with_name("backup").rename(path)

    assert store.revoked_at(["known"]) == LATER
    assert copied_at <= store.revoked_at(["lacking"]) < LATER
    assert len(_errors(caplog)) == 1


def test_a_file_that_is_replaced_during_a_write_takes_it_the_next_time(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def replace(statement: str) -> None:
        if statement == "COMMIT":
            monkeypatch.undo()
            path.with_name("another").rename(path)

    def watched(*args: Any, **options: Any) -> sqlite3.Connection:
        opened: sqlite3.Connection = connect(*args, **options)
        opened.set_trace_callback(replace)
        return opened

    for each in (path, path.with_name("another")):
        SqliteStore(each).check()
    monkeypatch.setattr(sqlite3, "connect", watched)
    with pytest.raises(StoreUnavailable):
        store.revoke(["a"], at=LATER, until=END)
    store.revoke(["a"], at=LATER, until=END)

    assert SqliteStore(path).revoked_at(["a"]) == LATER


@pytest.fixture
def version_1(path: Path) -> Iterator[sqlite3.Connection]:
    """A file as version 1.0 made it, still open in a worker of that version."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            """
            PRAGMA auto_vacuum=FULL; PRAGMA journal_mode=WAL;
            CREATE TABLE ended
            (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, at REAL, until REAL);
            CREATE INDEX ended_until ON ended (until);
            CREATE TABLE taken (jti TEXT PRIMARY KEY, until REAL) WITHOUT ROWID;
            CREATE INDEX taken_until ON taken (until);
            CREATE TABLE birth (at REAL); INSERT INTO birth VALUES (1000.0);
            """
        )
        _end_as_version_1(connection, "a")
        yield connection


def _end_as_version_1(connection: sqlite3.Connection, key: str) -> None:
    row = sha256(key.encode()).hexdigest(), LATER, END
    connection.execute("INSERT INTO ended (key, at, until) VALUES (?, ?, ?)", row)


def test_what_version_1_ended_stays_ended_and_nobody_is_signed_out(
    version_1: sqlite3.Connection, store: SqliteStore
) -> None:
    version_1.close()

    assert store.revoked_at(["a"]) == LATER
    assert store.revoked_at(["b"]) == 1000.0
    store.revoke(["b"], at=LATER, until=END)
    assert store.revoked_at(["b"]) == LATER


def test_a_file_of_version_1_that_its_workers_still_use(
    path: Path, version_1: sqlite3.Connection, store: SqliteStore
) -> None:
    assert store.revoked_at(["a"]) == LATER
    _end_as_version_1(version_1, "b")
    assert store.revoked_at(["b"]) == LATER
    store.revoke(["c"], at=LATER, until=END)
    assert SqliteStore(path).revoked_at(["c"]) == LATER

    version_1.close()
    assert store.revoked_at(["d"]) == 1000.0


def _lock(path: Path) -> Callable[[], object]:
    SqliteStore(path).check()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    return holder.close


def _put_a_folder_there(path: Path) -> Callable[[], object]:
    path.mkdir(parents=True)
    return path.rmdir


def _put_a_file_in_place_of_the_folder(path: Path) -> Callable[[], object]:
    path.parent.write_text("a file")
    return path.parent.unlink


def _put_garbage_there(path: Path) -> Callable[[], object]:
    path.parent.mkdir()
    path.write_bytes(b"not a database " * 1000)
    return path.unlink


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (_lock, "database is locked"),
        (_put_a_folder_there, "unable to open database file"),
        (_put_a_file_in_place_of_the_folder, "File exists"),
        (_put_garbage_there, "file is not a database"),
    ],
)
def test_what_cannot_be_used_is_told_once_a_minute_until_it_can(
    path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], Callable[[], object]],
    cause: str,
) -> None:
    clock, real = Clock(), time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + clock.offset)
    monkeypatch.setattr(StoreUnavailable, "_logged_at", {})
    monkeypatch.setattr(revocations, "_PATIENCE", 0.5)
    mend = spoil(path)
    store = SqliteStore(path)
    uses: list[Callable[[], object]] = [
        store.check,
        lambda: store.revoked_at(["all"]),
        lambda: store.revoke(["all"], at=LATER, until=END, jti="j"),
    ]
    for minute in range(2):
        for use in uses:
            began = real()
            with pytest.raises(StoreUnavailable) as told:
                use()
            assert real() - began < 3  # gives up, rather than hangs
            assert told.value.error == "revocations_unavailable"
            assert told.value.retry_after == 5
        assert len(_errors(caplog)) == minute + 1
        clock.forward(61)
    assert cause in caplog.text
    assert str(path) in caplog.text

    mend()
    assert store.revoke(["all"], at=LATER, until=END, jti="j") is True
    assert store.revoked_at(["all"]) == LATER


def test_a_file_that_is_spoiled_while_in_use_is_told_and_can_be_replaced(
    path: Path, store: SqliteStore
) -> None:
    store.revoke(["all"], at=LATER, until=END)
    path.write_bytes(b"not a database " * 1000)

    with pytest.raises(StoreUnavailable):
        store.revoked_at(["all"])

    path.unlink()
    store.check()
    assert store.revoke(["all"], at=LATER, until=END) is True


def test_a_write_that_waits_for_another_process_too_long_leaves_no_trace(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "_PATIENCE", 0.1)
    store.check()
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            store.revoke(["all"], at=LATER, until=END, jti="j")
        assert store.revoked_at(["all"]) < LATER  # look-ups do not wait

    assert store.revoke(["all"], at=LATER, until=END, jti="j") is True


def _fill_the_disk(left: int) -> Callable[[], None]:
    """Let no file grow longer than what is left; return what makes room again."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, most))
    return partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most, most))


@forks
def test_a_full_disk_is_told_and_a_retry_is_no_replay(
    path: Path, store: SqliteStore
) -> None:
    store.revoke(["before"], at=LATER, until=END)
    keys = [f"id {number}" for number in range(20_000)]

    def child() -> object:
        store.check()
        make_room = _fill_the_disk(200_000)
        with pytest.raises(StoreUnavailable):
            store.revoke(keys, at=LATER, until=END, jti="j")
        seen = store.revoked_at(["before"]), store.revoked_at(keys[:1]) < LATER
        make_room()
        return seen, store.revoke(keys, at=LATER, until=END, jti="j")

    assert in_a_child(child) == ((LATER, True), True)
    assert store.revoked_at(keys[-1:]) == LATER


@forks
def test_a_check_notices_a_full_disk(store: SqliteStore) -> None:
    store.check()

    def child() -> object:
        _fill_the_disk(0)
        with pytest.raises(StoreUnavailable):
            store.check()
        return True

    assert in_a_child(child) is True


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A folder that a user without rights can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


@forks
def test_a_read_only_file_still_answers_and_takes_writes_when_it_may_again(
    anybodys: Path,
) -> None:
    path = anybodys / "revocations.sqlite3"

    def somebody() -> object:
        store, other = SqliteStore(path), SqliteStore(path)
        store.revoke(["all"], at=LATER, until=END)
        path.chmod(0o400)
        seen = [store.revoked_at(["all"])]
        with pytest.raises(StoreUnavailable):
            store.check()
        with pytest.raises(StoreUnavailable):
            store.revoke(["all"], at=LATER + 1, until=END, jti="j")
        seen.append(store.revoked_at(["all"]))
        path.chmod(0o600)
        other.revoke(["all"], at=LATER + 1, until=END)
        seen.append(store.revoked_at(["all"]))
        store.revoke(["all"], at=LATER + 2, until=END, jti="j")
        seen.append(other.revoked_at(["all"]))
        return seen

    assert in_a_child(somebody, as_user=65534) == [
        *(LATER, LATER, LATER + 1, LATER + 2)
    ]


@forks
def test_a_read_only_folder_is_told_at_the_start_or_still_answers(
    anybodys: Path,
) -> None:
    path = anybodys / "revocations.sqlite3"

    def reader() -> object:
        with pytest.raises(StoreUnavailable):
            SqliteStore(anybodys / "another").check()
        store = SqliteStore(path)
        with pytest.raises(StoreUnavailable):
            store.check()
        return store.revoked_at(["all"])

    writer = partial(SqliteStore(path).revoke, ["all"], at=LATER, until=END)
    assert in_a_child(writer, as_user=65534) is True
    anybodys.chmod(0o555)
    assert in_a_child(reader, as_user=65534) == LATER


def test_a_process_stopped_in_a_write_holds_up_no_look_up(
    path: Path, store: SqliteStore
) -> None:
    store.revoke(["all"], at=LATER, until=END)
    script = """
        import sqlite3
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        print("in it", flush=True)
        time.sleep(60)
    """
    with _start(script, path) as other:
        assert other.stdout
        other.stdout.readline()
        other.send_signal(signal.SIGSTOP)
        try:
            assert store.revoked_at(["all"]) == LATER
            assert SqliteStore(path).revoked_at(["all"]) == LATER
        finally:
            other.kill()
    assert store.revoke(["all"], at=LATER + 1, until=END) is True
