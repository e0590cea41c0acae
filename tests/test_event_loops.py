"""Async views on reused event loops.

asgiref's own tests run on ours, too: see ``.ci/peers``.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib.metadata
import os
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import AsyncToSync, sync_to_async

from auth0_flask.event_loops import MAX_IDLE, reuse_event_loops
from servers import run, until

Loop = asyncio.AbstractEventLoop
Act = Callable[[Loop], Any]

HANG = 30  # seconds after which a hang fails a test; none waits so long otherwise

IS_OLD = tuple(map(int, importlib.metadata.version("asgiref").split(".")[:2])) < (3, 12)
needs_reuse = pytest.mark.skipif(IS_OLD, reason="before asgiref 3.12 nothing is reused")


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


def test_sync_code_of_a_view_runs_in_its_request_and_may_call_async_code() -> None:
    """As where a template calls an async context processor."""
    colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour")

    async def view() -> list[object]:
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        before = colour.get("none")
        colour.set("of another view")
        loop.call_later(0.01, event.set)

        async def async_code() -> Loop:
            await event.wait()  # of the view: works only on the view's loop
            return asyncio.get_running_loop()

        def sync_code() -> list[object]:
            found = [reuse_event_loops(async_code)() is loop for _ in range(2)]
            return [*found, threading.current_thread()]

        run = sync_to_async(sync_code)
        return [before, *await run(), *await asyncio.create_task(run())]

    def request() -> bool:
        thread = threading.current_thread()
        return reuse_event_loops(view)() == ["none", *[True, True, thread] * 2]

    assert [within_reason(request) for _ in range(3)] == [True] * 3


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (SystemExit, lambda loop: sys.exit()),
        (SystemExit, lambda loop: loop.call_soon(sys.exit)),
        (RuntimeError, lambda loop: loop.stop()),
    ],
)
def test_what_ends_a_loop_comes_through(error: type[BaseException], end: Act) -> None:
    async def view() -> None:
        end(asyncio.get_running_loop())
        await asyncio.sleep(HANG)

    with pytest.raises(error):
        within_reason(reuse_event_loops(view))
    reuse_event_loops(asyncio.sleep)(0)


@needs_reuse
def test_a_loop_is_closed_between_calls_and_reused_where_no_other_call_has_it() -> None:
    both = threading.Barrier(2, timeout=HANG)

    async def rows() -> AsyncGenerator[int, None]:
        yield 1

    async def view(waits: int = 0, failure: type[Exception] | None = None) -> Loop:
        async with asyncio.timeout(HANG):  # has asgiref note the loop for the thread
            await asyncio.gather(asyncio.sleep(0.001), sync_to_async(str)())
        assert [row async for row in rows()] == [1]
        for _ in range(waits):
            both.wait()
        if failure:
            raise failure
        return asyncio.get_running_loop()

    def calls() -> list[Loop]:
        loop, coroutine = reuse_event_loops(view)(), asyncio.sleep(0)
        assert loop.is_closed()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            asyncio.run_coroutine_threadsafe(coroutine, loop)
        coroutine.close()
        with pytest.raises(ValueError, match=r"^$"):
            reuse_event_loops(view)(failure=ValueError)
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(reuse_event_loops(view), 2)
            both.wait()
            other = reuse_event_loops(view)()
            both.wait()
        return [loop, call.result(), other]

    loop, reused, other = within_reason(calls)
    assert reused is loop is not other


@pytest.mark.parametrize(
    "leave",
    [
        lambda loop: loop.create_task(asyncio.Event().wait()),
        lambda loop: loop.call_later(HANG, print),
        lambda loop: loop.add_reader(os.pipe()[0], print),
        lambda loop: loop.run_in_executor(ThreadPoolExecutor(1), time.sleep, 1),
        lambda loop: setattr(loop, "slow_callback_duration", 60),
    ],
)
def test_a_loop_that_a_call_left_something_on_is_closed(leave: Act) -> None:
    async def view() -> tuple[Loop, Any]:
        loop = asyncio.get_running_loop()
        return loop, leave(loop)

    (loop, _left), (other, _) = (reuse_event_loops(view)() for _ in range(2))

    assert loop is not other
    assert loop.is_closed()


@pytest.mark.parametrize("is_stopped", [False, True])
def test_nothing_of_a_request_is_held_while_idle(is_stopped: bool) -> None:
    body: contextvars.ContextVar[set[int]] = contextvars.ContextVar("body")

    async def view(argument: set[int]) -> None:
        assert await sync_to_async(lambda: argument)() is body.get()
        if is_stopped:
            asyncio.get_running_loop().stop()
            await asyncio.sleep(HANG)

    def request() -> weakref.ref[set[int]]:
        body.set({1})
        with suppress(RuntimeError):
            reuse_event_loops(view)(body.get())
        return weakref.ref(body.get())

    # the first request of a thread, and one that finds a loop
    seen = [contextvars.Context().run(request) for _ in range(2)]
    until(lambda: gc.collect() >= 0 and not any(reference() for reference in seen))


@needs_reuse
def test_views_that_block_do_not_block_each_other_and_few_threads_stay() -> None:
    all_here = threading.Barrier(count := MAX_IDLE + 6, timeout=HANG)

    async def view() -> threading.Thread:
        all_here.wait()
        await sync_to_async(all_here.wait)()
        return threading.current_thread()

    with ThreadPoolExecutor(count) as pool:
        threads = [*pool.map(lambda _: reuse_event_loops(view)(), range(count))]
    until(lambda: sum(thread.is_alive() for thread in threads) <= MAX_IDLE == 64)
    assert all(thread.daemon for thread in threads)


START = """\
import asyncio, os, sys, threading
from asgiref.sync import sync_to_async
sys.path.append("auth0_flask")  # the rest of the package takes a second to import
from event_loops import reuse_event_loops
def wait(child): return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
async def one(): return await sync_to_async(int)("1")
"""


def python(script: str) -> str:
    """Run a script that has the bridge, and ``wait`` for a forked child, to its end."""
    options = "-W", "error", "-W", "ignore::DeprecationWarning"
    command = ["timeout", str(HANG), sys.executable, *options, "-c"]
    return run(*command, START + textwrap.dedent(script), env={})


@needs_reuse
def test_forks_hang_neither_parent_nor_child() -> None:
    said = python(
        """
        def fork():
            child = os.fork()
            if not child:
                os._exit(6 + reuse_event_loops(one)())
            return child
        [reuse_event_loops(one)() for _ in range(3)]
        child = fork()
        print(len(threading.enumerate()), wait(child))  # idle threads were ended before

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
        print(codes, "while threads run views", flush=True)
        os._exit(0)
        """
    )

    found = [line.partition(" in ")[0] for line in said.splitlines()]
    # what follows is asyncio's, since Python 3.14, of a loop in a child
    assert found[:4] == ["1 7", "7", "7", "{1} while threads run views"], said


@needs_reuse
def test_a_process_ends_at_once_and_silently_even_while_a_view_runs() -> None:
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

    assert python("print(reuse_event_loops(one)())") == "1\n"
    assert python(running) == "by Ctrl+C\n"


def test_an_old_asgiref_and_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (type(reuse_event_loops(asyncio.sleep)) is AsyncToSync) == IS_OLD

    for name in [name for name in sys.modules if name.startswith("asgiref.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, reuse_event_loops.__module__)

    with pytest.raises(ImportError, match=r"asgiref: pip install 'flask\[async\]'"):
        importlib.import_module(reuse_event_loops.__module__)
