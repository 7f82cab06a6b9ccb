"""Compute items ahead of their use: in another thread, or several in flight on the device."""

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_END = object()
_POLL_SECONDS = 0.1


def ahead(items: Iterable[Item], n: int = 4) -> Generator[Item, None, None]:
    """Yield `items` in order while another thread computes up to `n` of them ahead.

    An exception in the thread is raised at its position in the sequence. Close the iterator to stop the thread early
    (`contextlib.closing`), which closes `items` in that thread if it is a generator; if it is never closed, the thread
    stops when the main thread ends.
    """
    ready: queue.Queue = queue.Queue(n)
    stopped, finished = threading.Event(), threading.Event()

    def is_wanted() -> bool:
        return not stopped.is_set() and threading.main_thread().is_alive()

    def put(value: object) -> bool:
        while is_wanted():
            try:
                ready.put(value, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    break
            else:
                put((_END, None))
            if isinstance(items, Generator):
                items.close()
        except BaseException as error:
            put((_END, error))
        finally:
            finished.set()

    # Not a daemon: the interpreter waits for this thread before it shuts down. A daemon that is inside torch while
    # the interpreter is torn down aborts the process.
    thread = threading.Thread(target=work, name="ahead")
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        # A second Ctrl-C may come here. In Python 3.11 and 3.12 a join that is interrupted takes the thread for ended
        # (bpo-45274), and the interpreter would be torn down beneath it.
        finished.wait()
        thread.join()


def in_flight(items: Iterable[Item], n: int) -> Iterator[Item]:
    """Yield `items` in order, each when `n` have been made, itself among them, or all: work that making an item has
    started can go on while the next ones are made. With n = 1 each is yielded at once."""
    made: deque[Item] = deque()
    for item in items:
        made.append(item)
        if len(made) >= n:
            yield made.popleft()
    yield from made
