"""Two kinds of event loop: one for the network, and kept ones for async views."""

from __future__ import annotations

import asyncio
import atexit
import os
import selectors
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from .generators import Generators
from .settings import SetupError

try:
    from asgiref.sync import ThreadSensitiveContext, async_to_sync
except ImportError:
    cure = "Flask is installed without its async part: pip install 'flask[async]'"
    raise SetupError((cure,)) from None

P = ParamSpec("P")
R = TypeVar("R")

#: Idle loops kept at most; more are closed when they come back.
MOST_IDLE = 64
#: Times that what a view left behind is ended, since an end may begin something.
_MOST_ROUNDS = 3
_UNSET = object()


class _NetworkLoop:
    """One loop in a thread of its own, as long as the process lives.

    `ServerClient` keeps connections, locks and the token it has just been handed on
    one object: it was written for one loop, and Flask gives every view its own.
    A daemon thread, so that no process waits for it at its end.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a forked child: threads do not come along."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def is_running_here(self) -> bool:
        return asyncio.get_running_loop() is self._loop

    async def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine there, with the caller's context, and wait here."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._started())
        return await asyncio.wrap_future(future)

    def call(self, coroutine: Coroutine[Any, Any, R], seconds: float) -> R:
        """Run a coroutine there, from a thread without a loop, and wait here.

        Raises:
            TimeoutError: It was not done after so many seconds.
        """
        bounded = asyncio.wait_for(coroutine, seconds)
        return asyncio.run_coroutine_threadsafe(bounded, self._started()).result()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                # a loop keeps the context it is made in: not that of a request
                self._loop = Context().run(asyncio.new_event_loop)
                threading.Thread(
                    target=self._loop.run_forever, name="auth0-network", daemon=True
                ).start()
            return self._loop


network = _NetworkLoop()
_idle: deque[asyncio.Runner] = deque()
# held while a process forks, so that none comes back between the closing and the fork
_coming_back = threading.Lock()
# Loops whose view made tasks; asking asyncio for all tasks takes longer, the more
# requests there are at once.
_with_tasks: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


def kept_loops(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Make an async view callable from sync code, on a loop that is kept.

    For ``app.async_to_sync``, the seam that Flask documents for this.
    Making a loop and an executor for every call, as Flask's own bridge does, takes
    several times as long as the rest of a request.
    Every call has a loop to itself while it runs, so a view that blocks holds up
    only its own request.

    Args:
        function: A coroutine function. Nothing bound to a loop (a client, a lock)
            may outlive its call in a global.

    Returns:
        A function that runs it to its end: context variables set inside are seen
        outside, tasks left behind are cancelled.

    Raises:
        RuntimeError: From the function returned, where a loop already runs in the
            thread; asgiref says what to do.
    """
    return partial(_run, function)


def _run(
    function: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
) -> R:
    if _a_loop_runs_here():
        return async_to_sync(function)(*args, **kwargs)
    view = function(*args, **kwargs)
    runner, context = _take(), copy_context()
    # not runner.run, which swaps signal handlers around each call in a main thread
    loop = runner.get_loop()
    alone = _alone(loop, Generators(loop, context), view)
    task = asyncio.Task(alone, loop=loop, context=context)
    try:
        _drive(loop, task)
        return task.result()
    finally:
        if not task.done():  # as when Ctrl+C came
            task.cancel()
            _drive(loop, task)
        _take_over(context)
        _put_back(runner)


def _drive(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    while not task.done():
        loop.run_forever()


async def _alone(
    loop: asyncio.AbstractEventLoop,
    generators: Generators,
    coroutine: Coroutine[Any, Any, R],
) -> R:
    """Await a coroutine, leave the loop as it was found, and stop it."""
    generators.watch()
    try:
        # without it asgiref runs the sync calls of all requests on one thread
        async with ThreadSensitiveContext():
            return await coroutine
    finally:
        try:
            await _clear(loop, generators)
        finally:
            loop.stop()


async def _clear(loop: asyncio.AbstractEventLoop, generators: Generators) -> None:
    """Cancel the tasks and close the generators that a view left behind."""
    for _ in range(_MOST_ROUNDS):
        if not generators.were_any and loop not in _with_tasks:
            return
        _with_tasks.discard(loop)
        generators.were_any = False
        await asyncio.sleep(0)  # one let go of just now begins to close
        left_behind = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left_behind - generators.closing:
            task.cancel()
        await asyncio.gather(*left_behind, return_exceptions=True)
        await generators.close()


def _a_loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _take_over(context: Context) -> None:
    for variable, value in context.items():
        if variable.get(_UNSET) is not value:
            variable.set(value)


def _take() -> asyncio.Runner:
    try:
        return _idle.pop()
    except IndexError:
        runner = asyncio.Runner(loop_factory=_new_loop)
        Context().run(runner.get_loop)  # it keeps the context it is made in
        return runner


class _Selector(selectors.DefaultSelector):
    """Asks the system only where there is something to hear of.

    A view that waits for nothing has no more than the loop's own pipe registered,
    which wakes it up when it sleeps. Asking all the same would let go of the GIL,
    at which another thread goes on and this request waits for its turn again.
    """

    def select(self, timeout: float | None = None) -> list[Any]:
        """Return what is ready, after so many seconds at most."""
        if timeout == 0 and len(self.get_map()) == 1:
            return []
        return super().select(timeout)


def _new_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.SelectorEventLoop(_Selector())
    loop.set_task_factory(_note_task)
    return loop


def _note_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
) -> asyncio.Task[Any]:
    """Make a task as usual, and note that there may be one to cancel."""
    _with_tasks.add(loop)
    return asyncio.Task(coroutine, loop=loop, **options)


def _put_back(runner: asyncio.Runner) -> None:
    is_clear = runner.get_loop() not in _with_tasks
    with _coming_back:
        if is_clear and len(_idle) < MOST_IDLE:
            _idle.append(runner)
            return
    runner.close()


def _close_before_fork() -> None:
    _coming_back.acquire()
    if not _a_loop_runs_here():
        _close_idle()
        return
    helper = threading.Thread(target=_close_idle)  # closing runs a loop for a moment
    helper.start()
    helper.join()


def _close_idle() -> None:
    with suppress(IndexError):  # others may take some at the same time
        while True:
            _idle.pop().close()


def _after_fork_in_child() -> None:
    _coming_back.release()
    network.forget()


# A forked child must not share a loop's selector with its parent: idle loops are
# closed before a fork, and made anew on both sides when they are wanted.
os.register_at_fork(
    before=_close_before_fork,
    after_in_parent=_coming_back.release,
    after_in_child=_after_fork_in_child,
)
atexit.register(_close_idle)
