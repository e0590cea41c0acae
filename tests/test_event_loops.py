"""Async views on reused event loops: answered as by Flask's own bridge.

asgiref's own tests run on ours, too: see ``.ci/peers``.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from asgiref.wsgi import WsgiToAsgi
from flask import Flask, g, render_template_string

from auth0_flask.event_loops import MAX_IDLE, reuse_event_loops
from servers import ROOT

Bridge = Callable[..., Callable[..., Any]]
Loop = asyncio.AbstractEventLoop

# A hang fails a test after so many seconds; no test waits so long otherwise.
HANG = 30

needs_reuse = pytest.mark.skipif(
    tuple(map(int, version("asgiref").split(".")[:2])) < (3, 12),
    reason="with asgiref before 3.12 nothing is reused",
)

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour")


@pytest.fixture(params=["flask", "reuse_event_loops"])
def bridge(request: pytest.FixtureRequest) -> Bridge:
    """Flask's own bridge, and then ours: both tell the same story."""
    own: Bridge = Flask(__name__).async_to_sync
    return own if request.param == "flask" else reuse_event_loops


@pytest.fixture
def app(bridge: Bridge) -> Flask:
    app = Flask(__name__)
    app.async_to_sync = bridge  # type: ignore[method-assign]
    return app


def within_reason(function: Callable[[], Any]) -> Any:
    """Call a function; if it hangs, fail, and leave its thread behind."""
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future.result(HANG)


def get(app: Flask) -> str:
    """Request the page, as a server's thread does."""
    return str(within_reason(lambda: app.test_client().get("/").text))


async def which_loop() -> Loop:
    return asyncio.get_running_loop()


# As Flask's own bridge: async code within sync code within async code


@pytest.mark.parametrize("is_waiting_for_view", [False, True])
def test_template_in_sync_code_calls_an_async_context_processor(
    app: Flask, is_waiting_for_view: bool
) -> None:
    @app.context_processor
    async def name() -> dict[str, Any]:
        if is_waiting_for_view:
            await g.event.wait()  # of the view: works only on the view's loop
        return {"name": "Ada", "is_one_loop": g.loop is asyncio.get_running_loop()}

    @app.get("/")
    async def page() -> str:
        g.loop, g.event = asyncio.get_running_loop(), asyncio.Event()
        g.loop.call_later(0.01, g.event.set)

        def render() -> list[str]:
            text = "{{ name }} {{ is_one_loop }}"
            return [render_template_string(text) for _ in range(2)]

        return " ".join(await sync_to_async(render)())

    assert [get(app) for _ in range(3)] == ["Ada True Ada True"] * 3


def test_app_as_asgi_with_a_thread_sensitive_context_per_request(app: Flask) -> None:
    @app.get("/")
    async def page() -> str:
        return await sync_to_async(str)("page")

    as_asgi: Any = WsgiToAsgi(app)  # type: ignore[no-untyped-call]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def requests() -> bytes:
        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/"}
        scope |= {"http_version": "1.1", "query_string": b"", "headers": []}
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        for _ in range(3):
            async with ThreadSensitiveContext():
                await as_asgi(scope, receive, send)
        return b"".join(message.get("body", b"") for message in sent)

    assert within_reason(lambda: asyncio.run(requests())) == b"page" * 3


def test_sqlite_connection_of_the_request_serves_sync_code_of_the_view(
    app: Flask,
) -> None:
    @app.before_request
    def connect() -> None:
        g.db = sqlite3.connect(":memory:")

    @app.teardown_request
    def close(_: BaseException | None) -> None:
        g.db.close()

    @app.get("/")
    async def page() -> str:
        row = await sync_to_async(lambda: g.db.execute("SELECT 'row'").fetchone())()
        return str(row[0])

    assert [get(app) for _ in range(3)] == ["row"] * 3


def test_sync_code_of_a_view_runs_in_the_thread_of_its_request(bridge: Bridge) -> None:
    async def view() -> tuple[threading.Thread, threading.Thread]:
        current = sync_to_async(threading.current_thread)
        return await current(), await asyncio.create_task(current())

    def request() -> bool:
        return bool(bridge(view)() == (threading.current_thread(),) * 2)

    assert [within_reason(request) for _ in range(3)] == [True] * 3


@pytest.mark.parametrize("in_sync_code", [False, True])
def test_views_that_block_do_not_block_each_other(
    bridge: Bridge, in_sync_code: bool
) -> None:
    all_here = threading.Barrier(4, timeout=HANG)

    async def view() -> Loop:
        await sync_to_async(all_here.wait)() if in_sync_code else all_here.wait()
        return asyncio.get_running_loop()

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(bridge(view)) for _ in range(4)]

    assert len({call.result() for call in calls}) == 4


# As Flask's own bridge: what goes in and comes out


def test_calls_see_no_context_variables_of_each_other(bridge: Bridge) -> None:
    async def view(value: str) -> str:
        before = colour.get("none")
        colour.set(value)
        return before

    def request(value: str) -> str:
        return str(within_reason(lambda: bridge(view)(value)))

    assert [request("red"), request("green")] == ["none", "none"]


@pytest.mark.parametrize("exit_with", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("raised_by", ["view", "callback"])
def test_what_ends_a_process_comes_through(
    bridge: Bridge, exit_with: type[BaseException], raised_by: str
) -> None:
    cleaned_up: list[str] = []

    def leave() -> None:
        raise exit_with

    async def view() -> None:
        try:
            if raised_by == "callback":
                asyncio.get_running_loop().call_soon(leave)
                await asyncio.sleep(HANG)
            leave()
        finally:
            cleaned_up.append("view")

    with pytest.raises(exit_with):
        within_reason(bridge(view))
    assert cleaned_up == ["view"]
    assert bridge(which_loop)()


def test_a_view_that_stops_its_loop_fails_and_does_not_hang(bridge: Bridge) -> None:
    async def view() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(HANG)

    with pytest.raises(RuntimeError, match="stopped before Future completed"):
        within_reason(bridge(view))
    assert bridge(which_loop)()


def test_tasks_and_generators_left_behind_are_ended(
    bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    held: list[AsyncIterator[int]] = []
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(HANG)
        finally:
            await asyncio.sleep(0)
            ended.append("task")

    async def rows(*, fail: bool) -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            ended.append("rows")
            if fail:
                raise ValueError("while closing")

    async def view() -> asyncio.Task[None]:
        held[:] = rows(fail=False), rows(fail=True)
        task = asyncio.create_task(wait())
        assert [await anext(each) for each in held] == [1, 1]
        return task

    assert bridge(view)().cancelled()
    assert sorted(ended) == ["rows", "rows", "task"]
    assert "asynchronous generator" in caplog.text
    assert bridge(which_loop)()


# What is reused


async def _nothing() -> None:
    pass


async def _sync_code() -> None:
    await sync_to_async(str)()


async def _timeouts_and_tasks() -> None:
    async with asyncio.timeout(HANG):
        await asyncio.gather(asyncio.sleep(0.001), asyncio.sleep(0))


async def _rows() -> AsyncGenerator[int, None]:
    yield 1


async def _exhausted_generator() -> None:
    async for _ in _rows():
        pass


async def _failure() -> None:
    raise ValueError


@needs_reuse
@pytest.mark.parametrize(
    "ending",
    [_nothing, _sync_code, _timeouts_and_tasks, _exhausted_generator, _failure],
)
def test_a_loop_that_a_call_left_nothing_on_is_reused(
    ending: Callable[[], Awaitable[None]],
) -> None:
    loops: list[Loop] = []

    async def view() -> None:
        loops.append(asyncio.get_running_loop())
        await ending()

    for _ in range(5):
        with suppress(ValueError):
            reuse_event_loops(view)()

    assert len(loops) == 5
    assert len(set(loops)) == 1


async def _begun(loop: Loop) -> Any:
    task = loop.create_task(asyncio.Event().wait())  # of nobody
    await asyncio.sleep(0)
    return task


async def _generator(loop: Loop) -> Any:
    held = _rows()
    await anext(held)
    return held


def _callbacks(loop: Loop) -> Any:
    return loop.call_soon(_callbacks, loop)  # and on and on


def _socket(loop: Loop) -> Any:
    pair = socket.socketpair()
    loop.add_reader(pair[0], _nothing)
    return [each.close for each in pair]


def _executor(loop: Loop) -> Any:
    pool, released = ThreadPoolExecutor(1), threading.Event()
    loop.run_in_executor(pool, released.wait, HANG)
    return [released.set]


@pytest.mark.parametrize(
    "leave",
    [
        *(_begun, _generator, _callbacks, _socket, _executor),
        lambda loop: loop.create_task(asyncio.sleep(HANG)),
        lambda loop: loop.call_later(HANG, print),
        lambda loop: loop.run_in_executor(None, str),
        lambda loop: loop.set_debug(not loop.get_debug()),
        lambda loop: loop.set_exception_handler(lambda *_: None),
        lambda loop: loop.set_task_factory(
            lambda loop, coro, **more: asyncio.Task(coro, loop=loop, **more)
        ),
        lambda loop: setattr(loop, "slow_callback_duration", 60),
    ],
    ids=[
        *("begun", "generator", "callbacks", "socket", "executor", "task", "timer"),
        *("thread", "debug", "exception_handler", "task_factory", "attribute"),
    ],
)
def test_a_loop_that_a_call_left_something_on_is_closed(
    leave: Callable[[Loop], Any],
) -> None:
    async def view() -> tuple[Loop, Any]:
        loop = asyncio.get_running_loop()
        left = leave(loop)
        return loop, await left if asyncio.iscoroutine(left) else left

    loop, left = reuse_event_loops(view)()

    assert reuse_event_loops(which_loop)() is not loop
    assert loop.is_closed()
    for end in left if isinstance(left, list) else ():
        end()


@needs_reuse
def test_a_loop_in_use_by_one_request_is_not_used_by_another() -> None:
    """Not even where asgiref has noted it for the thread."""
    runs, over = threading.Event(), threading.Event()

    async def sync_code() -> Loop:
        await sync_to_async(str)()
        return asyncio.get_running_loop()

    async def view() -> Loop:
        runs.set()
        while not over.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.001)
        return asyncio.get_running_loop()

    noted = reuse_event_loops(sync_code)()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(reuse_event_loops(view))
        assert runs.wait(HANG)
        other = reuse_event_loops(which_loop)()
        over.set()

    assert call.result() is noted
    assert other is not noted


@needs_reuse
def test_who_still_knows_a_loop_finds_it_closed_between_calls() -> None:
    loop = reuse_event_loops(which_loop)()
    coroutine = _nothing()

    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        asyncio.run_coroutine_threadsafe(coroutine, loop)
    coroutine.close()
    assert reuse_event_loops(which_loop)() is loop


@pytest.mark.parametrize("is_stopped", [False, True])
def test_nothing_of_a_request_is_held_while_idle(is_stopped: bool) -> None:
    class Body:
        """What came with a request."""

    body: contextvars.ContextVar[Body] = contextvars.ContextVar("body")

    async def view(argument: Body) -> None:
        colour.set("of the view")
        assert await sync_to_async(lambda: argument)() is body.get()
        if is_stopped:
            asyncio.get_running_loop().stop()
            await asyncio.sleep(HANG)

    def request() -> weakref.ref[Body]:
        body.set(Body())
        with suppress(RuntimeError):
            reuse_event_loops(view)(body.get())
        return weakref.ref(body.get())

    # the first request of a thread, and one that finds a loop
    seen = [contextvars.Context().run(request) for _ in range(2)]
    until = time.monotonic() + HANG
    while any(reference() for reference in seen) and time.monotonic() < until:
        gc.collect()
        time.sleep(0.01)  # the thread is still about to become idle

    assert [reference() for reference in seen] == [None, None]


@needs_reuse
def test_idle_threads_are_limited() -> None:
    def threads() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "async-view"]

    count = MAX_IDLE + 6
    all_here = threading.Barrier(count, timeout=HANG)

    async def view() -> bool:
        all_here.wait()
        return threading.current_thread() in threads()

    with ThreadPoolExecutor(count) as pool:
        calls = [pool.submit(reuse_event_loops(view)) for _ in range(count)]
        assert all(call.result() for call in calls)
    until = time.monotonic() + HANG
    while len(threads()) > MAX_IDLE and time.monotonic() < until:
        time.sleep(0.01)  # the others end, and tell nobody

    assert 0 < len(threads()) <= MAX_IDLE == 64
    assert all(thread.daemon for thread in threads())


# Processes: forks and ends

_START = """\
import asyncio, os, sys, threading
from asgiref.sync import AsyncToSync, sync_to_async
sys.path.append("auth0_flask")  # the rest of the package takes a second to import
from event_loops import reuse_event_loops
def wait(child): return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
async def one(): return await sync_to_async(int)("1")
"""


def start(script: str, *options: str) -> subprocess.Popen[str]:
    """Start a script that has the bridge, and ``wait`` for a forked child."""
    return subprocess.Popen(
        [sys.executable, *options, "-c", _START + textwrap.dedent(script)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def python(script: str, *options: str) -> tuple[str, str]:
    """Run such a script to its end; return what it said."""
    with start(script, "-W", "ignore::DeprecationWarning", *options) as process:
        try:
            said, errors = process.communicate(timeout=HANG)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    return said, errors


@needs_reuse
def test_forks_hang_neither_parent_nor_child() -> None:
    said, errors = python(
        """
        [reuse_event_loops(one)() for _ in range(3)]
        def fork():
            child = os.fork()
            if not child:
                os._exit(6 + reuse_event_loops(one)())
            return child
        child = os.fork()
        if not child:
            assert len(threading.enumerate()) == 1
            os._exit(6 + reuse_event_loops(one)())
        assert len(threading.enumerate()) == 1  # idle threads were ended before
        print(wait(child), "outside of a view")

        async def view():
            return await sync_to_async(wait)(fork())
        print(reuse_event_loops(view)(), "in a view")

        async def view():
            return await sync_to_async(lambda: wait(fork()))()
        print(reuse_event_loops(view)(), "in sync code of a view")

        async def view():
            child = os.fork()
            return 7 + await sync_to_async(wait)(child) if child else 0
        print(reuse_event_loops(view)(), "in a view that the child returns from, too")

        async def rows():
            yield 1
            yield 2
        async def view():
            global held
            rows_here = rows()
            await anext(rows_here)
            child = os.fork()
            if not child:
                held = rows_here
                return 0
            return 7 + await sync_to_async(wait)(child)
        print(reuse_event_loops(view)(), "in one that the child leaves a generator of")
        print(reuse_event_loops(one)())
        """,
        *("-X", "dev"),
    )

    assert [line[0] for line in said.splitlines()] == [*"77777", "1"], said
    assert "ResourceWarning" not in errors


def test_a_process_can_fork_while_its_threads_run_views() -> None:
    said, _ = python(
        """
        over = threading.Event()
        def use():
            while not over.is_set():
                reuse_event_loops(one)()
        users = [threading.Thread(target=use) for _ in range(3)]
        sys.setswitchinterval(1e-5)
        for user in users: user.start()
        codes = set()
        for _ in range(100):
            child = os.fork()
            if not child:  # calls no view: a lock of asgiref may have come along
                os._exit(len(threading.enumerate()))
            codes.add(wait(child))
        over.set()
        for user in users: user.join()
        print(codes, reuse_event_loops(one)())
        """
    )

    assert said == "{1} 1\n"


@needs_reuse
def test_a_process_ends_at_once_and_silently_even_while_a_view_runs() -> None:
    idle = """
        async def loop(): return asyncio.get_running_loop()
        print(reuse_event_loops(one)())
        print(reuse_event_loops(loop)() is reuse_event_loops(loop)())
    """
    running = f"""
        runs = threading.Event()
        async def view():
            runs.set()
            await asyncio.sleep({HANG * 10})
        threading.Thread(target=reuse_event_loops(view), daemon=True).start()
        runs.wait()
    """

    assert python(idle, *("-X", "dev", "-W", "error")) == ("1\nTrue\n", "")
    assert python(idle + running) == ("1\nTrue\n", "")


@needs_reuse
def test_ctrl_c_ends_a_process_that_waits_for_a_view() -> None:
    script = f"""
        async def view():
            print("runs", flush=True)
            await asyncio.sleep({HANG * 10})
        reuse_event_loops(view)()
    """
    with start(script) as process:
        assert process.stdout
        assert process.stdout.readline() == "runs\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=HANG)

    assert "KeyboardInterrupt" in errors
    assert process.returncode == -signal.SIGINT


@needs_reuse
def test_with_an_older_asgiref_nothing_is_reused_and_without_one_it_says_so() -> None:
    said, _ = python(
        """
        async def thread(): return threading.current_thread().name
        def tell():
            del sys.modules["event_loops"]
            from event_loops import reuse_event_loops
            print(reuse_event_loops(one)(), reuse_event_loops(thread)() == "async-view")
        tell()
        AsyncToSync.main_event_loop = None
        tell()
        del AsyncToSync.main_event_loop, AsyncToSync.context_to_thread_executor
        tell()
        sys.modules |= {name: None for name in sys.modules if "asgiref" in name}
        try: tell()
        except ImportError as error: print(error)
        """
    )

    assert said == (
        "1 True\n1 False\n1 False\n"
        "Async views need asgiref: pip install 'flask[async]'\n"
    )
