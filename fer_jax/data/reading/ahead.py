"""Work that threads do ahead of the one who needs it, in order."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def in_order(make: Callable[[Any], Any], items: Iterable[Any], workers: int, ahead: int) -> Iterator[Any]:
  """Iterates over ``make(item)`` in the order of ``items``.

  Args:
    make: may be called from several threads at once; what it raises is raised when its result would come.
    items: drawn by the one who iterates.
    workers: threads; 0: none, everything is made when it is asked for.
    ahead: how many items are made, or in the making, before they are asked for.
  """
  if not workers:
    yield from map(make, items)
    return
  waiting: collections.deque = collections.deque()
  pool = ThreadPoolExecutor(workers)
  try:
    for item in items:
      waiting.append(pool.submit(make, item))
      if len(waiting) > ahead:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    pool.shutdown(wait=False, cancel_futures=True)
