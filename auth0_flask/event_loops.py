"""Event loops that are reused from one call of an async view to the next."""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sized
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

try:
    from asgiref.current_thread_executor import CurrentThreadExecutor
    from asgiref.sync import AsyncToSync, SyncToAsync
except ImportError as error:
    cure = "Async views need asgiref: pip install 'flask[async]'"
    raise ImportError(cure) from error

P = ParamSpec("P")
R = TypeVar("R")

#: Idle threads kept at most, each with an event loop.
MAX_IDLE = 64


def reuse_event_loops(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Make an async function callable from sync code, on a reused event loop.

    For ``app.async_to_sync``, the hook that Flask has for this. asgiref does the work,
    as in Flask's own bridge, but the thread and the event loop of a call are reused by
    a later one, unless the call left something on the loop: a task, a timer, a
    generator, an open connection, a changed setting. Then the loop is shut down as
    ``asyncio.run`` does it. With asgiref before 3.12 nothing is reused.

    What differs from Flask's own bridge: the loop is an ``asyncio.SelectorEventLoop``,
    whatever the policy; what an async view puts into a ``threading.local`` may be there
    in a later one; a view that still runs when the process exits is abandoned; up to
    ``MAX_IDLE`` idle threads stay.

    Args:
        function: A coroutine function. What it binds to its loop, such as a client or
            a lock, must not outlive the call.

    Returns:
        A function that runs it to its end.
    """
    return (_Bridge if _CAN_REUSE else AsyncToSync)(function)


# All that is used of asgiref's internals: in a thread without a loop `AsyncToSync` asks
# `async_single_thread_context` for a context and `context_to_thread_executor` for its
# executor, and submits `asyncio.run` and a coroutine to that. This is context and
# executor in one.
class _Workers(Executor):
    def get(self, _default: Any = None) -> Any:
        context: Any = AsyncToSync.async_single_thread_context
        return context.get(self)  # the user's own AsyncSingleThreadContext goes first

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if function is not asyncio.run or len(args) != 1 or kwargs:
            return ThreadPoolExecutor(1).submit(function, *args, **kwargs)
        try:
            worker = _idle.pop()
        except IndexError:
            worker = _Worker()
        future: Future[Any] = Future()
        worker.calls.put((future, args[0]))
        return future


class _Bridge(AsyncToSync):  # type: ignore[type-arg]  # not generic in old versions
    async_single_thread_context: Any = _Workers()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # `sync_to_async` notes its loop for the thread. asgiref would run the thread's
        # next view there unless that loop is closed, and a reused one is not.
        noted = vars(SyncToAsync.threadlocal)
        before = noted.copy()
        try:
            return super().__call__(*args, **kwargs)
        finally:
            noted.clear()
            noted.update(before)


# The executors came with 3.10. Before 3.12 loops were noted on the bridge as well, and
# on those of other code they cannot be restored.
_CAN_REUSE = hasattr(AsyncToSync, "context_to_thread_executor") and not hasattr(
    AsyncToSync(asyncio.sleep), "main_event_loop"
)
if _CAN_REUSE:
    _workers: Any = _Bridge.async_single_thread_context
    AsyncToSync.context_to_thread_executor[_workers] = _workers


class _Loop(asyncio.SelectorEventLoop):
    """Runs calls as ``asyncio.run`` does, until one leaves something on it.

    While parked, between two calls, it answers as one that is closed.
    """

    __slots__ = ("_as_made", "_containers", "_files", "is_parked", "process")

    def __init__(self) -> None:
        self._files, self.is_parked = selectors.DefaultSelector(), False
        self.process = os.getpid()
        super().__init__(self._files)
        self.used_executor = False
        self.call_soon(self.stop)
        self.run_forever()  # the first time, debug mode notes something
        self._as_made = vars(self).copy()  # asyncio's attributes, without the slots
        self._containers = [v for v in self._as_made.values() if isinstance(v, Sized)]
        self.is_parked = True

    def run_call(self, coroutine: Any) -> None:
        self.is_parked = False
        try:
            self.run_until_complete(self.create_task(coroutine, context=Context()))
        finally:
            self.is_parked = True
            if self.process == os.getpid() and not self._is_as_made():
                self.shut_down()

    def _is_as_made(self) -> bool:
        is_changed = vars(self) != self._as_made or any(map(len, self._containers))
        has_files = len(self._files.get_map()) > 1  # more than its own pipe
        return not (is_changed or has_files or asyncio.all_tasks(self))

    def shut_down(self) -> None:
        self.is_parked = False
        with asyncio.Runner(loop_factory=lambda: self):
            pass  # cancels tasks, closes generators, ends the executor and closes

    def run_in_executor(self, executor: Any, *args: Any) -> Any:  # type: ignore[override]
        # any may call back later, but `sync_to_async` waits for what it submits
        self.used_executor |= not isinstance(executor, CurrentThreadExecutor)
        return super().run_in_executor(executor, *args)

    def is_closed(self) -> bool:
        return self.is_parked or super().is_closed()

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        if self.is_parked:
            raise RuntimeError("Event loop is closed")
        return super().call_soon_threadsafe(*args, **kwargs)


class _Worker(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="async-view", daemon=True)
        self.calls: SimpleQueue[Any] = SimpleQueue()
        Context().run(self.start)  # or Python may hand on that of the request

    def run(self) -> None:
        loop, is_kept = None, True
        while is_kept and (call := self.calls.get()):
            future, coroutine = call
            failure: BaseException | None = None
            try:
                if loop is None or not loop.is_parked:
                    loop = _Loop()
                loop.run_call(coroutine)
            except BaseException as error:  # else the caller would wait for ever
                failure = error
            if loop and loop.process != os.getpid():
                return  # a child that the view forked: nobody waits here
            # does not wait for the lock: a fork, which has it, may wait for this thread
            if is_kept := _lock.acquire(blocking=False):
                if is_kept := len(_idle) < MAX_IDLE:
                    _idle.append(self)
                _lock.release()
            if failure:
                future.set_exception(failure)
            else:
                future.set_result(None)
            # an idle thread keeps nothing of a request
            del future, coroutine, call, failure
        if loop and loop.is_parked:
            loop.shut_down()


_idle: deque[_Worker] = deque()
_lock = threading.RLock()  # held while a thread becomes idle, and during a fork


def _before_fork() -> None:
    _lock.acquire()
    with suppress(IndexError):  # others may take some at the same time
        while worker := _idle.pop():
            worker.calls.put(None)
            worker.join()
            # before Python 3.13, it may still free what OpenSSL kept for it, under a
            # lock that the child would wait for
            while os.path.exists(f"/proc/self/task/{worker.native_id}"):
                time.sleep(0.001)


def _after_fork_in_child() -> None:
    _idle.clear()  # if Ctrl+C came while they were ended
    _lock.release()


# Threads do not come along into a forked child, but what their loops have open does.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_lock.release,
        after_in_child=_after_fork_in_child,
    )
