"""Two kinds of loop: views on kept ones, the network on one."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import sync_to_async

from login import loops
from login.loops import kept_loops, network

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour")


async def _which_loop() -> int:
    return id(asyncio.get_running_loop())


def test_one_loop_serves_call_after_call() -> None:
    which = kept_loops(_which_loop)

    assert len({which() for _ in range(20)}) == 1


def test_calls_at_once_have_a_loop_each_and_do_not_hold_one_another_up() -> None:
    together = threading.Barrier(4, timeout=10)

    async def view() -> int:
        together.wait()  # blocks: passes only if all four run at once
        return id(asyncio.get_running_loop())

    with ThreadPoolExecutor(4) as pool:
        seen = {f.result() for f in [pool.submit(kept_loops(view)) for _ in range(4)]}

    assert len(seen) == 4


def test_context_variables_travel_in_and_out() -> None:
    async def view() -> str:
        came = colour.get()
        colour.set("green")
        return came

    colour.set("red")

    assert kept_loops(view)() == "red"
    assert colour.get() == "green"


def test_an_exception_comes_through_and_the_loop_is_good_for_the_next() -> None:
    async def view() -> None:
        colour.set("set before the failure")
        raise ValueError("of the view")

    with pytest.raises(ValueError, match="of the view"):
        kept_loops(view)()

    assert colour.get() == "set before the failure"
    assert kept_loops(_which_loop)()


def test_tasks_left_behind_are_cancelled() -> None:
    ended: list[str] = []

    async def straggler() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def view() -> None:
        view.task = asyncio.create_task(straggler())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    kept_loops(view)()

    assert ended == ["cancelled"]


def test_a_view_that_never_sleeps_hears_of_sockets_threads_and_timers() -> None:
    async def view() -> tuple[bytes, str, bool]:
        here, there = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=here)
        awaited = asyncio.gather(
            reader.readexactly(5), asyncio.to_thread(str, "a thread"), asyncio.sleep(0)
        )
        there.sendall(b"bytes")
        while not awaited.done():  # noqa: ASYNC110 - that is the story
            await asyncio.sleep(0)
        late = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.01, late.set_result, True)
        while not late.done():  # noqa: ASYNC110 - that, too
            await asyncio.sleep(0)
        writer.close()
        there.close()
        await writer.wait_closed()
        return (*(await awaited)[:2], late.result())

    for _ in range(3):
        assert kept_loops(view)() == (b"bytes", "a thread", True)
        assert kept_loops(_which_loop)()


def test_a_generator_left_half_way_is_closed_before_the_view_is_over() -> None:
    closed: list[str] = []

    async def rows() -> AsyncGenerator[int, None]:
        token = colour.set("within")
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            colour.reset(token)
            closed.append("rows")

    async def view() -> int:
        async for row in rows():
            return row
        return 0

    assert kept_loops(view)() == 1
    assert closed == ["rows"]


def test_a_generator_that_does_not_close_is_told_and_harms_no_view(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def rows() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise ValueError("while closing")

    async def view() -> int:
        return await anext(rows())

    assert kept_loops(view)() == 1
    assert "generator" in caplog.text
    assert kept_loops(view)() == 1


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_lets_the_view_clean_up(
    ending: type[BaseException],
) -> None:
    cleaned: list[str] = []

    def raise_it() -> None:
        raise ending

    async def view() -> None:
        asyncio.get_running_loop().call_soon(raise_it)  # as from a signal
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned.append("view")

    with pytest.raises(ending):
        kept_loops(view)()

    assert cleaned == ["view"]
    assert kept_loops(_which_loop)()


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_a_view_that_ends_the_process_does_so(ending: type[BaseException]) -> None:
    async def view() -> None:
        raise ending

    with pytest.raises(ending):
        kept_loops(view)()

    assert kept_loops(_which_loop)()


def test_a_call_with_wrong_arguments_takes_no_loop_along() -> None:
    which = kept_loops(_which_loop)
    first = which()

    with pytest.raises(TypeError):
        which("too many")  # type: ignore[call-arg]  # that is the test

    assert which() == first


def test_sync_calls_of_several_requests_run_side_by_side() -> None:
    together = threading.Barrier(4, timeout=10)

    async def view() -> None:
        await sync_to_async(together.wait)()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(kept_loops(view)) for _ in range(4)]:
            future.result()


async def test_inside_a_running_loop_asgiref_says_what_is_wrong() -> None:
    with pytest.raises(RuntimeError, match="async event loop"):
        kept_loops(_which_loop)()


def test_no_more_loops_are_kept_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "MOST_IDLE", 2)
    loops._close_idle()
    together = threading.Barrier(5, timeout=10)

    async def view() -> None:
        together.wait()

    with ThreadPoolExecutor(5) as pool:
        for future in [pool.submit(kept_loops(view)) for _ in range(5)]:
            future.result()

    assert len(loops._idle) == 2


async def test_the_network_loop_is_one_for_all_and_sees_the_callers_context() -> None:
    async def there() -> tuple[int, str, str]:
        loop = asyncio.get_running_loop()
        return id(loop), colour.get(), threading.current_thread().name

    colour.set("blue")
    first, second = await asyncio.gather(network.run(there()), network.run(there()))

    assert first == second
    assert first[0] != id(asyncio.get_running_loop())
    assert first[1:] == ("blue", "auth0-network")


async def test_a_cancelled_caller_cancels_what_it_waits_for() -> None:
    began, ended = threading.Event(), threading.Event()

    async def there() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    waiting = asyncio.create_task(network.run(there()))
    assert await asyncio.to_thread(began.wait, 10)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.to_thread(ended.wait, 10)


def _in_the_child(answers: multiprocessing.Queue[tuple[bool, int]]) -> None:
    async def through_the_network() -> bool:
        return await network.run(_true())

    answers.put((kept_loops(through_the_network)(), len(loops._idle)))


async def _true() -> bool:
    return True


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_makes_loops_of_its_own() -> None:
    async def through_the_network() -> bool:
        return await network.run(_true())

    assert kept_loops(through_the_network)()
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    child = fork.Process(target=_in_the_child, args=(answers,))
    child.start()

    assert answers.get(timeout=10) == (True, 1)
    child.join(10)
    assert child.exitcode == 0
    assert kept_loops(through_the_network)()  # and the parent's still work


def test_a_process_that_used_both_ends_at_once_and_says_nothing() -> None:
    script = """
        import sys; sys.path.insert(0, ".")
        from login.loops import kept_loops, network
        async def there(): return "done"
        async def view(): return await network.run(there())
        print(kept_loops(view)())
    """
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    assert ended.stdout == "done\n"
    assert "ResourceWarning" not in ended.stderr
    assert time.monotonic() - began < 15  # a hang, not a speed


def test_a_generator_that_is_let_go_of_is_closed_at_once() -> None:
    """As outside of Flask; else it keeps its connection to the end of the request."""

    async def view() -> int:
        pool = asyncio.Semaphore(1)

        async def rows() -> AsyncGenerator[int, None]:
            async with pool:
                yield 1
                yield 2

        for _ in range(3):
            async with asyncio.timeout(10):
                async for _row in rows():
                    break
        return 3

    assert kept_loops(view)() == 3


def test_a_generator_that_ends_by_a_cancelled_task_spoils_no_answer() -> None:
    held: list[AsyncGenerator[int, None]] = []

    async def events() -> AsyncGenerator[int, None]:
        reader = asyncio.create_task(asyncio.sleep(3600))
        try:
            yield 1
        finally:
            reader.cancel()
            await reader

    async def view() -> str:
        held.append(events())
        await anext(held[0])
        return "the answer"

    assert kept_loops(view)() == "the answer"


def test_a_task_begun_by_the_end_of_another_does_not_live_on() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def left() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            tasks.append(asyncio.create_task(asyncio.sleep(3600)))

    async def view() -> None:
        tasks.append(asyncio.create_task(left()))
        await asyncio.sleep(0)

    kept_loops(view)()

    assert [task.cancelled() for task in tasks] == [True, True]


def test_a_kept_loop_keeps_nothing_of_the_request_that_it_was_made_for() -> None:
    class Body:
        """What came with a request."""

    of_a_request: contextvars.ContextVar[Body] = contextvars.ContextVar("of_a_request")

    def request() -> weakref.ref[Body]:
        body = Body()
        of_a_request.set(body)
        kept_loops(_which_loop)()
        return weakref.ref(body)

    loops._close_idle()
    seen = contextvars.copy_context().run(request)
    gc.collect()

    assert seen() is None


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_loop_that_is_used_while_a_process_forks_does_not_come_along() -> None:
    """Else its child, at its end, takes it off a selector that they share."""
    over = threading.Event()
    interval = sys.getswitchinterval()

    def use() -> None:
        while not over.is_set():
            kept_loops(_which_loop)()

    def fork() -> int:
        if (child := os.fork()) == 0:
            os._exit(len(loops._idle) > 0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    with ThreadPoolExecutor(4) as pool:
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(4):
                pool.submit(use)
            assert not any(fork() for _ in range(400))
        finally:
            over.set()
            sys.setswitchinterval(interval)
