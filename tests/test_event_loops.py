"""Async views on reused event loops: answered as by Flask's own bridge.

asgiref's own tests run on ours, too: see ``.ci/peers``.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import pytest
from asgiref.sync import sync_to_async
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


def within_reason(function: Callable[[], Any]) -> Any:
    """Call a function in a new thread; if it hangs, fail, and leave that behind."""
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
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.01)


async def which_loop() -> Loop:
    return asyncio.get_running_loop()


def test_template_in_sync_code_calls_an_async_context_processor(bridge: Bridge) -> None:
    app = Flask(__name__)
    app.async_to_sync = bridge  # type: ignore[method-assign]

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


def test_sync_code_of_a_view_runs_in_the_thread_and_context_of_its_request(
    bridge: Bridge,
) -> None:
    async def view() -> tuple[str, threading.Thread, threading.Thread]:
        before, current = colour.get("none"), sync_to_async(threading.current_thread)
        colour.set("of another view")
        return before, await current(), await asyncio.create_task(current())

    def request() -> bool:
        return bool(bridge(view)() == ("none", *[threading.current_thread()] * 2))

    assert [within_reason(request) for _ in range(3)] == [True] * 3


def test_views_that_block_do_not_block_each_other(bridge: Bridge) -> None:
    all_here = threading.Barrier(4, timeout=HANG)

    async def view() -> Loop:
        all_here.wait()
        await sync_to_async(all_here.wait)()
        return asyncio.get_running_loop()

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(bridge(view)) for _ in range(4)]

    assert len({call.result() for call in calls}) == 4


def raised(error: type[BaseException]) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (KeyboardInterrupt, lambda loop: loop.call_soon(raised, KeyboardInterrupt)),
        (SystemExit, lambda loop: loop.call_soon(raised, SystemExit)),
        (SystemExit, lambda loop: raised(SystemExit)),
        (RuntimeError, lambda loop: loop.stop()),
    ],
)
def test_what_ends_a_loop_comes_through_and_all_that_runs_there_is_ended(
    bridge: Bridge,
    error: type[BaseException],
    end: Callable[[Loop], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[str] = []

    async def generator() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            ended.append("generator")
            raise ValueError("while closing")

    async def run(name: str, end: Callable[[Loop], Any]) -> None:
        try:
            end(asyncio.get_running_loop())
            await asyncio.sleep(HANG)
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    held = generator()

    async def view() -> None:
        await anext(held)
        await asyncio.gather(run("task", id), run("view", end))

    with pytest.raises(error):
        within_reason(bridge(view))
    assert sorted(ended) == ["generator", "task", "view"]
    assert "asynchronous generator" in caplog.text
    assert bridge(which_loop)()


@needs_reuse
def test_a_loop_that_a_call_left_nothing_on_is_reused_and_closed_meanwhile() -> None:
    async def rows() -> AsyncGenerator[int, None]:
        yield 1

    async def view(failure: type[Exception] | None = None) -> Loop:
        async with asyncio.timeout(HANG):
            await asyncio.gather(asyncio.sleep(0.001), sync_to_async(str)())
        assert [row async for row in rows()] == [1]
        if failure:
            raise failure
        return asyncio.get_running_loop()

    loop, coroutine = reuse_event_loops(which_loop)(), asyncio.sleep(0)
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        asyncio.run_coroutine_threadsafe(coroutine, loop)
    coroutine.close()

    with pytest.raises(ValueError, match=r"^$"):
        reuse_event_loops(view)(ValueError)
    assert [reuse_event_loops(view)() for _ in range(2)] == [loop, loop]


@pytest.mark.parametrize(
    "leave",
    [
        lambda loop: loop.create_task(asyncio.Event().wait()),
        lambda loop: loop.call_later(HANG, print),
        lambda loop: loop.add_reader(os.pipe()[0], print),
        lambda loop: loop.run_in_executor(None, str),
        lambda loop: setattr(loop, "slow_callback_duration", 60),
    ],
)
def test_a_loop_that_a_call_left_something_on_is_closed(
    leave: Callable[[Loop], Any],
) -> None:
    async def view() -> tuple[Loop, Any]:
        loop = asyncio.get_running_loop()
        return loop, leave(loop)

    loop, _left = reuse_event_loops(view)()

    assert reuse_event_loops(which_loop)() is not loop
    assert loop.is_closed()


@needs_reuse
def test_a_loop_in_use_by_one_request_is_not_used_by_another() -> None:
    both = threading.Barrier(2, timeout=HANG)

    async def view(waits: int) -> Loop:
        await sync_to_async(str)()  # has asgiref note the loop for the thread
        for _ in range(waits):
            both.wait()
        return asyncio.get_running_loop()

    def requests() -> list[Loop]:
        noted = reuse_event_loops(view)(0)
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(reuse_event_loops(view), 2)
            both.wait()
            other = reuse_event_loops(view)(0)
            both.wait()
        return [noted, call.result(), other]

    noted, used, other = within_reason(requests)
    assert used is noted is not other


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
    all_here = threading.Barrier(count := MAX_IDLE + 6, timeout=HANG)

    async def view() -> threading.Thread:
        all_here.wait()
        return threading.current_thread()

    with ThreadPoolExecutor(count) as pool:
        calls = [pool.submit(reuse_event_loops(view)) for _ in range(count)]
    threads = [call.result() for call in calls]
    until(lambda: sum(thread.is_alive() for thread in threads) <= MAX_IDLE == 64)
    assert all(thread.daemon for thread in threads)


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
    script = START + textwrap.dedent(script)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", *options, "-c", script],
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
        child = fork()
        assert len(threading.enumerate()) == 1  # idle threads were ended before
        print(wait(child), "outside of a view")

        async def view():
            return await sync_to_async(lambda: wait(fork()))()
        print(reuse_event_loops(view)(), "in sync code of a view")

        async def rows():
            yield 1
            yield 2
        async def view():
            global held
            held = rows()
            await anext(held)
            child = os.fork()
            return 7 + await sync_to_async(wait)(child) if child else 0
        print(reuse_event_loops(view)(), "in a view that the child returns from, too")
        print(reuse_event_loops(one)())
        """,
        *("-X", "dev"),
    )

    assert [line[0] for line in said.splitlines()] == [*"777", "1"], said
    assert "ResourceWarning" not in errors


def test_a_process_can_fork_while_its_threads_run_views() -> None:
    said, _ = python(
        """
        def use():
            while True: reuse_event_loops(one)()
        for _ in range(3): threading.Thread(target=use, daemon=True).start()
        sys.setswitchinterval(1e-5)
        codes = set()
        for _ in range(100):
            child = os.fork()
            if not child:  # calls no view: a lock of asgiref may have come along
                os._exit(len(threading.enumerate()))
            codes.add(wait(child))
        print(codes, reuse_event_loops(one)(), flush=True)
        os._exit(0)
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
