"""A bounded queue between two threads that can end, in either direction."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Channel(Generic[Item]):
    """What one thread puts in, another takes out, in order.

    Args:
        size: items at most.
        drops: a full one loses its oldest item; else it makes the giver wait.

    Attributes:
        dropped: how many were lost.
    """

    def __init__(self, size: int, *, drops: bool = False):
        self._items: collections.deque[Item] = collections.deque()
        self._size, self._drops = size, drops
        self._changed = threading.Condition()
        self._is_closed = self._is_cancelled = False
        self._error: BaseException | None = None
        self.dropped = 0

    def put(self, item: Item) -> bool:
        """Give an item; False if nobody wants more."""
        with self._changed:
            while len(self._items) >= self._size and not self._is_cancelled:
                if self._drops:
                    self._items.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            if self._is_cancelled:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def close(self, error: BaseException | None = None) -> None:
        """The giver has no more; the taker gets the error after the last item."""
        with self._changed:
            self._is_closed, self._error = True, error
            self._changed.notify_all()

    def cancel(self) -> None:
        """The taker wants no more."""
        with self._changed:
            self._is_cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """All items; waits for them."""
        while True:
            with self._changed:
                while not self._items and not self._is_closed and not self._is_cancelled:
                    self._changed.wait()
                if not self._items:
                    if self._error is not None and not self._is_cancelled:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
