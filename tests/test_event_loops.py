"""Async views on reused event loops: answered as by Flask's own bridge.

asgiref's own tests run on ours, too: see ``.ci/peers``.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import Any

import httpx
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


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another thread does, and tells nobody."""
    give_up = time.monotonic() + HANG
    while not is_so() and time.monotonic() < give_up:
        time.sleep(0.01)
    assert is_so()


async def which_loop() -> Loop:
    return asyncio.get_running_loop()


async def rows() -> AsyncGenerator[int, None]:
    yield 1


# As Flask's own bridge


def test_template_in_sync_code_calls_an_async_context_processor(app: Flask) -> None:
    @app.context_processor
    async def name() -> dict[str, Any]:
        await g.event.wait()  # of the view: works only on the view's loop
        return {"name": "Ada", "is_one_loop": g.loop is asyncio.get_running_loop()}

    @app.get("/")
    async def page() -> str:
        g.loop, g.event = asyncio.get_running_loop(), asyncio.Event()
        g.loop.call_later(0.01, g.event.set)
        texts = "{{ name }}", " {{ is_one_loop }}"
        rendered = await sync_to_async(lambda: [*map(render_template_string, texts)])()
        return "".join(rendered)

    def get() -> str:
        return app.test_client().get("/").text

    assert [within_reason(get) for _ in range(3)] == ["Ada True"] * 3


def test_app_as_asgi_with_a_thread_sensitive_context_per_request(app: Flask) -> None:
    @app.get("/")
    async def page() -> str:
        return await sync_to_async(str)("page")

    as_asgi = httpx.ASGITransport(WsgiToAsgi(app))  # type: ignore[no-untyped-call]

    async def requests() -> None:
        async with httpx.AsyncClient(transport=as_asgi, base_url="http://a") as client:
            for _ in range(3):
                async with ThreadSensitiveContext():
                    assert (await client.get("/")).text == "page"

    within_reason(lambda: asyncio.run(requests()))


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


def test_calls_see_no_context_variables_of_each_other(bridge: Bridge) -> None:
    async def view(value: str) -> str:
        before = colour.get("none")
        colour.set(value)
        return before

    for value in ("red", "green"):
        assert within_reason(partial(bridge(view), value)) == "none"


def raised(error: type[BaseException]) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "leave"),
    [
        (KeyboardInterrupt, lambda loop: raised(KeyboardInterrupt)),
        (KeyboardInterrupt, lambda loop: loop.call_soon(raised, KeyboardInterrupt)),
        (SystemExit, lambda loop: raised(SystemExit)),
        (SystemExit, lambda loop: loop.call_soon(raised, SystemExit)),
        (RuntimeError, lambda loop: loop.stop()),
    ],
)
def test_what_ends_a_process_or_a_loop_comes_through(
    bridge: Bridge, error: type[BaseException], leave: Callable[[Loop], Any]
) -> None:
    cleaned_up: list[str] = []

    async def view() -> None:
        try:
            leave(asyncio.get_running_loop())
            await asyncio.sleep(HANG)
        finally:
            cleaned_up.append("view")

    with pytest.raises(error):
        within_reason(bridge(view))
    assert cleaned_up == ["view"]
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

    async def generator(*, fail: bool) -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            ended.append("rows")
            if fail:
                raise ValueError("while closing")

    async def view() -> asyncio.Task[None]:
        held[:] = generator(fail=False), generator(fail=True)
        task = asyncio.create_task(wait())
        assert [await anext(each) for each in held] == [1, 1]
        return task

    assert bridge(view)().cancelled()
    assert sorted(ended) == ["rows", "rows", "task"]
    assert "asynchronous generator" in caplog.text
    assert bridge(which_loop)()


# What is reused


@needs_reuse
def test_a_loop_that_a_call_left_nothing_on_is_reused() -> None:
    async def everything() -> None:
        async with asyncio.timeout(HANG):
            await asyncio.gather(asyncio.sleep(0.001), sync_to_async(str)())
        assert [row async for row in rows()] == [1]

    async def view(failure: type[Exception] | None = None) -> Loop:
        await everything()
        if failure:
            raise failure
        return asyncio.get_running_loop()

    loops = [reuse_event_loops(each)() for each in (which_loop, view, view)]
    with pytest.raises(ValueError, match=r"^$"):
        reuse_event_loops(view)(ValueError)
    assert {*loops, reuse_event_loops(which_loop)()} == {loops[0]}


async def begun(loop: Loop) -> Any:
    task = loop.create_task(asyncio.Event().wait())  # of nobody
    await asyncio.sleep(0)
    return task


async def generator(loop: Loop) -> Any:
    held = rows()
    await anext(held)
    return held


def callbacks(loop: Loop) -> Any:
    return loop.call_soon(callbacks, loop)  # and on and on


def sockets(loop: Loop) -> Any:
    pair = socket.socketpair()
    loop.add_reader(pair[0], print)
    return [each.close for each in pair]


def executor(loop: Loop) -> Any:
    pool, released = ThreadPoolExecutor(1), threading.Event()
    loop.run_in_executor(pool, released.wait, HANG)
    return [released.set]


@pytest.mark.parametrize(
    "leave",
    [
        *(begun, generator, callbacks, sockets, executor),
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
        over.wait(HANG)
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
    loop, coroutine = reuse_event_loops(which_loop)(), asyncio.sleep(0)

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
    until(lambda: gc.collect() >= 0 and not any(reference() for reference in seen))


@needs_reuse
def test_idle_threads_are_limited() -> None:
    def threads() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "async-view"]

    all_here = threading.Barrier(count := MAX_IDLE + 6, timeout=HANG)

    async def view() -> bool:
        all_here.wait()
        return threading.current_thread() in threads()

    with ThreadPoolExecutor(count) as pool:
        calls = [pool.submit(reuse_event_loops(view)) for _ in range(count)]
        assert all(call.result() for call in calls)
    until(lambda: 0 < len(threads()) <= MAX_IDLE == 64)  # the others end
    assert all(thread.daemon for thread in threads())


# Processes: forks and ends

OPTIONS = ("-W", "ignore::DeprecationWarning")
START = """\
import asyncio, os, sys, threading
from asgiref.sync import AsyncToSync, sync_to_async
sys.path.append("auth0_flask")  # the rest of the package takes a second to import
from event_loops import reuse_event_loops
def wait(child): return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
async def one(): return await sync_to_async(int)("1")
"""


def python(script: str, *options: str) -> tuple[str, str]:
    """Run a script that has the bridge, and ``wait`` for a forked child, to its end."""
    ended = subprocess.run(
        [sys.executable, *OPTIONS, *options, "-c", START + textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, ended.stderr


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
        print(reuse_event_loops(loop)() is reuse_event_loops(loop)())
    """
    running = f"""
        import signal
        async def view():
            for _ in range({HANG * 10}):  # one that comes as a wait begins is lost
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(1)
        try: reuse_event_loops(view)()
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            print("by Ctrl+C")
    """

    assert python(idle, *("-X", "dev", "-W", "error")) == ("True\n", "")
    assert python(idle + running) == ("True\nby Ctrl+C\n", "")


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
