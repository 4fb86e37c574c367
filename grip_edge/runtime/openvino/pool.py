"""What only one thread can use at a time, kept for the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

_Worker = TypeVar("_Worker")


class Pool(Generic[_Worker]):
    """As many of them as there were requests at once."""

    def __init__(self, make: Callable[[], _Worker]) -> None:
        self._make = make
        self._idle: list[_Worker] = []

    @contextmanager
    def one(self) -> Iterator[_Worker]:
        try:
            worker = self._idle.pop()  # no two threads get the same
        except IndexError:
            worker = self._make()
        try:
            yield worker
        finally:
            self._idle.append(worker)
