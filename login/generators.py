"""Async generators of a view: closed when they are let go of, or when it is over."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator
from contextvars import Context
from functools import cached_property
from typing import Any
from weakref import WeakSet

logger = logging.getLogger(__name__)

_Generator = AsyncGenerator[Any, Any]


class Generators:
    """Those that one view begins.

    asyncio closes one that is let go of, too, but in another context, and cancels
    that where the view is over.

    Args:
        loop: The loop that runs the view.
        context: The context that the view runs in; generators end there, too.

    Attributes:
        were_any: Whether any was begun.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self._loop, self._context = loop, context
        self.were_any = False

    @cached_property
    def _begun(self) -> WeakSet[_Generator]:
        return WeakSet()

    @cached_property
    def closing(self) -> set[asyncio.Task[None]]:
        """Tasks that close some."""
        return set()

    def watch(self) -> None:
        """Hear of all that are begun in this thread until its loop stops."""
        sys.set_asyncgen_hooks(firstiter=self._note, finalizer=self._let_go)

    async def close(self) -> None:
        """Close those that somebody still holds."""
        for generator in list(self._begun):
            await _close(generator)

    def _note(self, generator: _Generator) -> None:
        self.were_any = True
        self._begun.add(generator)

    def _let_go(self, generator: _Generator) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin_to_close, generator)

    def _begin_to_close(self, generator: _Generator) -> None:
        end = _close(generator)
        task = asyncio.Task(end, loop=self._loop, context=self._context)
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)


async def _close(generator: _Generator) -> None:
    try:
        await generator.aclose()
    except asyncio.CancelledError:
        pass  # of a task that it waited for
    except Exception:
        logger.exception("A view left a generator behind that does not close.")
