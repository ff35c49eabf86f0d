"""How far long work has come: a bar on a terminal, a line every half minute in a file or a log."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tqdm

SECONDS = 30.0  # Between two lines.


def progress(iterable: Iterable[Any] | None = None, *, total: int | None = None, desc: str = '', unit: str = 'item',
             initial: int = 0, disable: bool = False) -> Any:
  """What a long piece of work says on standard error.

  Args:
    iterable: what to go through; without, ``update()`` says that an item is done.
    total: how many items there are, or ``total`` of the result is set later; None: as many as ``iterable`` has.
    desc: what is done.
    unit: what an item is called.
    initial: items that are done already.
    disable: say nothing.

  Returns:
    A ``tqdm``, or what has its ``update``, ``set_postfix``, ``total`` and ``close``; an iterator and a context manager.
    Without a terminal, work that takes less than half a minute says nothing.
  """
  if disable or sys.stderr.isatty():
    return tqdm.tqdm(iterable, total=total, desc=desc, unit=unit, initial=initial, disable=disable, mininterval=0.5,
                     dynamic_ncols=True)
  return _Lines(iterable, total, desc, unit, initial)


class _Lines:
  """Lines of their own, by a clock of their own: there is one even where no item gets done."""

  def __init__(self, iterable: Iterable[Any] | None, total: int | None, desc: str, unit: str, initial: int):
    self.total = len(iterable) if total is None and hasattr(iterable, '__len__') else total
    self._iterable, self._desc, self._unit = iterable, desc, unit
    self._count = self._initial = initial
    self._postfix, self._said = '', False
    self._begun, self._closed = time.monotonic(), threading.Event()
    threading.Thread(target=self._speak, daemon=True).start()

  def update(self, n: int = 1) -> None:
    self._count += n

  def set_postfix(self, values: Mapping[str, Any], refresh: bool = True) -> None:
    del refresh  # The next line has them.
    self._postfix = ''.join(f', {name} {value}' for name, value in values.items())

  def close(self) -> None:
    if self._said and not self._closed.is_set():
      self._say()
    self._closed.set()

  def __iter__(self) -> Iterator[Any]:
    with self:
      for item in self._iterable:
        yield item
        self.update()

  def __enter__(self) -> '_Lines':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _speak(self) -> None:
    while not self._closed.wait(SECONDS):
      self._said = True
      self._say()

  def _say(self) -> None:
    elapsed = time.monotonic() - self._begun
    rate = (self._count - self._initial) / elapsed
    text = f'{self._desc}: {self._count:,}' + (f' of {self.total:,}' if self.total else '') + f' {self._unit}s'
    text += f', {rate:,.1f} a second' if rate >= 1 else f', {60 * rate:,.1f} a minute'
    if self.total and rate:
      text += f', {tqdm.tqdm.format_interval((self.total - self._count) / rate)} left'
    print(text + self._postfix, file=sys.stderr, flush=True)
