"""Decoding picture files in several threads, a little ahead of what uses them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

DECODE_THREADS = min(4, os.cpu_count() or 1)

Item = TypeVar("Item")
Result = TypeVar("Result")


def decoded_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int = DECODE_THREADS
) -> Iterator[Result]:
    """Yield `work` of every item, in order; at most `threads` results wait, since a decoded picture is large.

    What `work` raises comes up where its result would; nothing further is begun once the iterator is closed.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
