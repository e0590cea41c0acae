"""Async views on reused event loops: answered as by Flask's own bridge."""

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
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import pytest
from asgiref import sync as asgiref_sync
from asgiref.current_thread_executor import CurrentThreadExecutor
from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext, sync_to_async
from asgiref.wsgi import WsgiToAsgi
from flask import Flask, g, render_template_string

from auth0_flask.event_loops import MAX_IDLE, reuse_event_loops

Bridge = Callable[..., Callable[..., Any]]

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


def get(app: Flask, path: str = "/") -> str:
    """Request a page, as a server's thread does."""
    return str(
        within_reason(lambda: app.test_client().get(path).get_data(as_text=True))
    )


async def which_loop() -> asyncio.AbstractEventLoop:
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

    async def request() -> bytes:
        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/"}
        scope |= {"http_version": "1.1", "query_string": b"", "headers": []}
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async with ThreadSensitiveContext():
            await as_asgi(scope, receive, send)
        return b"".join(message.get("body", b"") for message in sent)

    async def requests() -> list[bytes]:
        return [await request() for _ in range(3)]

    assert within_reason(lambda: asyncio.run(requests())) == [b"page"] * 3


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


def test_sync_code_of_several_requests_runs_at_once(bridge: Bridge) -> None:
    all_here = threading.Barrier(4, timeout=HANG)

    async def view() -> int:
        return await sync_to_async(all_here.wait)()

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(bridge(view)) for _ in range(4)]

    assert {call.result() for call in calls} == {0, 1, 2, 3}


def test_views_that_block_do_not_block_each_other(bridge: Bridge) -> None:
    all_here = threading.Barrier(4, timeout=HANG)

    async def view() -> asyncio.AbstractEventLoop:
        all_here.wait()
        return asyncio.get_running_loop()

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(bridge(view)) for _ in range(4)]

    assert len({call.result() for call in calls}) == 4


async def test_where_a_loop_runs_asgiref_tells_what_to_do(bridge: Bridge) -> None:
    with pytest.raises(RuntimeError, match="just await the async function directly"):
        bridge(which_loop)()


def test_methods_can_be_decorated(bridge: Bridge) -> None:
    class View:
        @bridge
        async def get(self, *, name: str) -> tuple[View, str]:
            return self, name

    view = View()

    assert view.get(name="page") == (view, "page")


@needs_reuse
def test_async_single_thread_context_of_asgiref_is_respected(bridge: Bridge) -> None:
    async def thread() -> threading.Thread:
        return threading.current_thread()

    with asgiref_sync.AsyncSingleThreadContext():  # type: ignore[no-untyped-call]
        first, second = bridge(thread)(), bridge(thread)()

    assert first is second
    assert first.name != "async-view"
    assert not first.is_alive()


# As Flask's own bridge: what goes in and comes out


def test_context_variables_set_inside_are_seen_outside(bridge: Bridge) -> None:
    async def view() -> str:
        before = colour.get()
        colour.set("green")
        return before

    colour.set("red")

    assert bridge(view)() == "red"
    assert colour.get() == "green"


def test_calls_see_no_context_variables_of_each_other(bridge: Bridge) -> None:
    async def view(value: str) -> str:
        before = colour.get("none")
        colour.set(value)
        return before

    def request(value: str) -> str:
        return str(within_reason(lambda: bridge(view)(value)))

    assert [request("red"), request("green")] == ["none", "none"]


def test_exceptions_propagate_and_later_calls_work(bridge: Bridge) -> None:
    async def view() -> None:
        colour.set("set before it failed")
        raise ValueError("of the view")

    with pytest.raises(ValueError, match="of the view"):
        bridge(view)()

    assert colour.get() == "set before it failed"
    assert bridge(which_loop)()


def test_wrong_arguments_are_a_type_error(bridge: Bridge) -> None:
    with pytest.raises(TypeError):
        bridge(which_loop)("one too many")

    assert bridge(which_loop)()


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


def test_an_executor_that_cannot_be_shut_down_fails_the_call(bridge: Bridge) -> None:
    class Broken(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait, cancel_futures=cancel_futures)
            raise ValueError("while shutting down")

    async def view() -> None:
        asyncio.get_running_loop().set_default_executor(Broken(1))

    with pytest.raises(ValueError, match="while shutting down"):
        within_reason(bridge(view))
    assert bridge(which_loop)()


# As Flask's own bridge, which uses asyncio.run: what a view leaves behind


def test_tasks_left_behind_are_cancelled(bridge: Bridge) -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(HANG)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append("cancelled")
            raise

    async def view() -> asyncio.Task[None]:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        return task

    assert bridge(view)().cancelled()
    assert ended == ["cancelled"]


def test_generators_left_halfway_are_closed(bridge: Bridge) -> None:
    held: list[AsyncIterator[int]] = []
    closed: list[str] = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append("numbers")

    async def view() -> int:
        held.append(numbers())
        return await anext(held[0])

    assert bridge(view)() == 1
    assert closed == ["numbers"]


def test_a_generator_let_go_of_is_closed_while_the_view_runs(bridge: Bridge) -> None:
    """Else it would keep its connection to the end of the request."""

    async def view() -> int:
        pool = asyncio.Semaphore(1)

        async def rows() -> AsyncGenerator[int, None]:
            async with pool:
                yield 1
                yield 2

        for _ in range(3):
            async with asyncio.timeout(HANG):
                async for _row in rows():
                    break
        return 3

    assert bridge(view)() == 3


def test_a_generator_that_fails_to_close_is_logged(
    bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    held: list[AsyncIterator[int]] = []

    async def rows() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise ValueError("while closing")

    async def view() -> int:
        held.append(rows())
        return await anext(held[0])

    assert bridge(view)() == 1
    assert "asynchronous generator" in caplog.text
    assert bridge(which_loop)()


def test_sockets_threads_and_timers_reach_a_view_that_polls(bridge: Bridge) -> None:
    async def view() -> tuple[bytes, str, bool]:
        here, there = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=here)
        awaited = asyncio.gather(
            reader.readexactly(5), asyncio.to_thread(str, "a thread"), asyncio.sleep(0)
        )
        there.sendall(b"bytes")
        while not awaited.done():  # noqa: ASYNC110 - polling is what is tested
            await asyncio.sleep(0)
        late = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.01, late.set_result, True)
        while not late.done():  # noqa: ASYNC110 - here, too
            await asyncio.sleep(0)
        writer.close()
        there.close()
        await writer.wait_closed()
        return (*(await awaited)[:2], late.result())

    for _ in range(3):
        assert within_reason(bridge(view)) == (b"bytes", "a thread", True)


# What is reused


async def _nothing() -> None:
    pass


async def _sync_code() -> None:
    await sync_to_async(str)()


async def _timeouts_and_tasks() -> None:
    async with asyncio.timeout(HANG):
        await asyncio.gather(asyncio.sleep(0.001), asyncio.sleep(0))


async def _exhausted_generator() -> None:
    async def rows() -> AsyncGenerator[int, None]:
        yield 1

    async for _ in rows():
        pass


async def _failure() -> None:
    raise ValueError


@needs_reuse
@pytest.mark.parametrize(
    "ending",
    [_nothing, _sync_code, _timeouts_and_tasks, _exhausted_generator, _failure],
)
def test_a_loop_that_a_call_left_nothing_on_is_reused(
    ending: Callable[[], Any],
) -> None:
    async def view() -> asyncio.AbstractEventLoop:
        loops.append(asyncio.get_running_loop())
        await ending()
        return loops[-1]

    loops: list[asyncio.AbstractEventLoop] = []
    for _ in range(5):
        try:
            reuse_event_loops(view)()
        except ValueError:
            assert ending is _failure

    assert len(loops) == 5
    assert len(set(loops)) == 1


def _task(_: Any) -> Any:
    return asyncio.create_task(asyncio.sleep(HANG))


def _callbacks(loop: asyncio.AbstractEventLoop) -> Any:
    return loop.call_soon(_callbacks, loop)  # and on and on


def _timer(loop: asyncio.AbstractEventLoop) -> Any:
    return loop.call_later(HANG, _nothing)


def _socket(loop: asyncio.AbstractEventLoop) -> Any:
    pair = socket.socketpair()
    loop.add_reader(pair[0], _nothing)
    return pair


def _executor(loop: asyncio.AbstractEventLoop) -> Any:
    pool, released = ThreadPoolExecutor(1), threading.Event()
    return pool, released, loop.run_in_executor(pool, released.wait, HANG)


def _thread(loop: asyncio.AbstractEventLoop) -> Any:
    return loop.run_in_executor(None, str)


def _debug(loop: asyncio.AbstractEventLoop) -> Any:
    loop.set_debug(not loop.get_debug())


def _exception_handler(loop: asyncio.AbstractEventLoop) -> Any:
    loop.set_exception_handler(lambda *_: None)


def _task_factory(loop: asyncio.AbstractEventLoop) -> Any:
    loop.set_task_factory(lambda loop, coro, **o: asyncio.Task(coro, loop=loop, **o))


def _attribute(loop: asyncio.AbstractEventLoop) -> Any:
    loop.slow_callback_duration = 60


@pytest.mark.parametrize(
    "leave",
    [
        *(_task, _callbacks, _timer, _socket, _executor, _thread),
        *(_debug, _exception_handler, _task_factory, _attribute),
    ],
)
def test_a_loop_that_a_call_left_something_on_is_closed(
    leave: Callable[[asyncio.AbstractEventLoop], Any],
) -> None:
    async def view() -> Any:
        loop = asyncio.get_running_loop()
        return loop, leave(loop)

    loop, left = reuse_event_loops(view)()

    assert reuse_event_loops(which_loop)() is not loop
    assert loop.is_closed()
    for end in left if isinstance(left, tuple) else ():
        if isinstance(end, socket.socket):
            end.close()
        elif isinstance(end, threading.Event):
            end.set()


def test_a_loop_left_with_a_generator_is_closed() -> None:
    held: list[AsyncIterator[int]] = []

    async def rows() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    async def view() -> asyncio.AbstractEventLoop:
        held.append(rows())
        await anext(held[0])
        return asyncio.get_running_loop()

    loop = reuse_event_loops(view)()

    assert loop.is_closed()
    assert reuse_event_loops(which_loop)() is not loop


def test_a_loop_left_with_a_task_that_waits_for_nothing_to_come_is_closed() -> None:
    async def view() -> tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]:
        task = asyncio.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)  # it begins
        return asyncio.get_running_loop(), task

    loop, task = reuse_event_loops(view)()

    assert task.cancelled()
    assert loop.is_closed()


@needs_reuse
def test_a_loop_in_use_by_one_request_is_not_used_by_another() -> None:
    """Not even where asgiref has noted it for the thread."""
    runs, over = threading.Event(), threading.Event()

    async def sync_code() -> asyncio.AbstractEventLoop:
        await sync_to_async(str)()
        return asyncio.get_running_loop()

    async def view() -> asyncio.AbstractEventLoop:
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


def views_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "async-view"]


@needs_reuse
def test_views_run_in_threads_that_tell_what_they_are_for() -> None:
    async def view() -> threading.Thread:
        return threading.current_thread()

    thread = reuse_event_loops(view)()

    assert thread in views_threads()
    assert thread.daemon


@needs_reuse
def test_idle_threads_are_limited() -> None:
    count = MAX_IDLE + 6
    all_here = threading.Barrier(count, timeout=HANG)

    async def view() -> None:
        all_here.wait()

    with ThreadPoolExecutor(count) as pool:
        for call in [pool.submit(reuse_event_loops(view)) for _ in range(count)]:
            call.result()
    until = time.monotonic() + HANG
    while len(views_threads()) > MAX_IDLE and time.monotonic() < until:
        time.sleep(0.01)  # the others end, and tell nobody

    assert 0 < len(views_threads()) <= MAX_IDLE == 64


# Processes: forks and ends


def python(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script that has the bridge, and ``wait`` for a forked child."""
    return subprocess.run(
        [sys.executable, *options, "-c", _START + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


_START = """\
import asyncio, os, sys, threading
from asgiref.sync import AsyncToSync, sync_to_async
def wait(child): return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
async def one(): return await sync_to_async(int)("1")
try:
    from auth0_flask.event_loops import reuse_event_loops
    async def thread(): return threading.current_thread().name
except ImportError as error: print(error)
"""


@needs_reuse
@pytest.mark.parametrize(
    ("name", "script"),
    [
        (
            "outside of a view",
            """
            child = os.fork()
            if not child:
                assert len(threading.enumerate()) == 1
                os._exit(6 + reuse_event_loops(one)())
            assert len(threading.enumerate()) == 1  # idle threads were ended before
            print(wait(child))
            """,
        ),
        (
            "in a view",
            """
            async def view():
                child = os.fork()
                if not child:
                    os._exit(6 + reuse_event_loops(one)())
                return await sync_to_async(wait)(child)
            print(reuse_event_loops(view)())
            """,
        ),
        (
            "in sync code of a view",
            """
            def fork():
                child = os.fork()
                if not child:
                    os._exit(6 + reuse_event_loops(one)())
                return wait(child)
            async def view():
                return await sync_to_async(fork)()
            print(reuse_event_loops(view)())
            """,
        ),
        (
            "in a view that the child returns from, too",
            """
            async def view():
                child = os.fork()
                if not child:
                    return 0
                return 7 + await sync_to_async(wait)(child)
            print(reuse_event_loops(view)())
            """,
        ),
        (
            "in a view that the child leaves a generator of",
            """
            async def rows():
                yield 1
                yield 2
            async def view():
                held = rows()
                await anext(held)
                child = os.fork()
                if not child:
                    globals()["held"] = held
                    return 0
                return 7 + await sync_to_async(wait)(child)
            print(reuse_event_loops(view)())
            """,
        ),
    ],
)
def test_forks_hang_neither_parent_nor_child(name: str, script: str) -> None:
    used = "[reuse_event_loops(one)() for _ in range(3)]\n"
    after = "\nprint(reuse_event_loops(one)())\n"

    ended = python(used + textwrap.dedent(script) + after, "-X", "dev")

    assert (ended.stdout, ended.returncode) == ("7\n1\n", 0), name
    assert "ResourceWarning" not in ended.stderr


def test_a_process_can_fork_while_its_threads_run_views() -> None:
    ended = python(
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
        """,
        "-W",
        "ignore::DeprecationWarning",
    )

    assert (ended.stdout, ended.returncode) == ("{1} 1\n", 0), ended.stderr


@needs_reuse
def test_a_process_ends_at_once_and_silently() -> None:
    ended = python(
        """
        async def loop(): return asyncio.get_running_loop()
        print(reuse_event_loops(one)())
        print(reuse_event_loops(loop)() is reuse_event_loops(loop)())
        """,
        *("-X", "dev", "-W", "error"),
    )

    assert (ended.stdout, ended.stderr, ended.returncode) == ("1\nTrue\n", "", 0)


@needs_reuse
def test_a_fork_hook_of_other_code_may_call_a_view() -> None:
    ended = python(
        """
        del sys.modules["auth0_flask.event_loops"]
        os.register_at_fork(before=lambda: print(reuse_event_loops(one)(), flush=True))
        from auth0_flask.event_loops import reuse_event_loops  # its hook comes first
        reuse_event_loops(one)()
        child = os.fork()
        if not child:
            os._exit(6 + reuse_event_loops(one)())
        print(wait(child))
        """,
        *("-W", "ignore::DeprecationWarning"),
    )

    assert (ended.stdout, ended.returncode) == ("1\n7\n", 0), ended.stderr


@needs_reuse
def test_a_process_ends_while_a_view_runs() -> None:
    ended = python(
        f"""
        runs = threading.Event()
        async def view():
            runs.set()
            await asyncio.sleep({HANG * 10})
        threading.Thread(target=reuse_event_loops(view), daemon=True).start()
        runs.wait()
        """
    )

    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 0)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    script = f"""
async def view():
    print("runs", flush=True)
    await asyncio.sleep({HANG * 10})
reuse_event_loops(view)()
"""
    command = [sys.executable, "-c", _START + script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        yield process
        process.kill()


@needs_reuse
def test_ctrl_c_ends_a_process_that_waits_for_a_view(
    process: subprocess.Popen[str],
) -> None:
    assert process.stdout
    assert process.stdout.readline() == "runs\n"

    process.send_signal(signal.SIGINT)

    _, errors = process.communicate(timeout=HANG)
    assert "KeyboardInterrupt" in errors
    assert process.returncode == -signal.SIGINT


# asgiref: its internals, its versions, its absence


@needs_reuse
def test_what_is_used_of_asgirefs_internals_is_there() -> None:
    """If this fails, read the comments in ``event_loops.py`` on what asgiref does."""
    context = AsyncToSync.async_single_thread_context
    assert context.get(None) is None
    with asgiref_sync.AsyncSingleThreadContext() as entered:  # type: ignore[no-untyped-call]
        assert context.get() is entered
        AsyncToSync(_nothing)()
        assert entered in AsyncToSync.context_to_thread_executor

    async def noted() -> tuple[object, object]:
        note = await sync_to_async(lambda: SyncToAsync.threadlocal.main_event_loop)()
        return note, asyncio.get_running_loop()

    note, loop = within_reason(AsyncToSync(noted))
    assert note is loop
    assert issubclass(CurrentThreadExecutor, object)
    assert not hasattr(AsyncToSync(_nothing), "main_event_loop")


@needs_reuse
@pytest.mark.parametrize(
    "older",
    [
        "del AsyncToSync.context_to_thread_executor",
        "AsyncToSync.main_event_loop = None",
    ],
)
def test_with_an_older_asgiref_nothing_is_reused(older: str) -> None:
    ended = python(
        f"""
        del sys.modules["auth0_flask.event_loops"]
        {older}
        from auth0_flask.event_loops import reuse_event_loops
        print(reuse_event_loops(one)(), reuse_event_loops(thread)() == "async-view")
        """
    )

    assert (ended.stdout, ended.returncode) == ("1 False\n", 0), ended.stderr


def test_without_asgiref_the_error_tells_what_to_install() -> None:
    ended = python(
        """
        for name in list(sys.modules):
            if name.startswith("asgiref"):
                sys.modules[name] = None
        del sys.modules["auth0_flask.event_loops"]
        import auth0_flask.event_loops
        """
    )

    assert ended.returncode == 1
    assert "ImportError: Async views need asgiref: pip install 'flask[async]'" in (
        ended.stderr
    )
