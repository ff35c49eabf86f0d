"""How far long work has come: a bar on a terminal, a line every half minute in a file or a log."""

import io
import sys
import threading
from collections.abc import Iterable
from typing import Any

import tqdm

from fer_jax.runtime.console import plain

SECONDS = 30.0  # Between two lines.


def progress(iterable: Iterable[Any] | None = None, *, disable: bool = False, **options: Any) -> tqdm.tqdm:
  """What a long piece of work says on standard error, as a ``tqdm``.

  Args:
    iterable: what to go through; without, ``update()`` says that an item is done.
    disable: say nothing.
    options: ``total``, how many items there are (it may be set later), ``desc``, what is done, ``unit``, what an item
      is called, and ``initial``, how many are done already.

  Returns:
    A bar on a terminal; elsewhere lines, none for work that takes less than half a minute.
  """
  kind = tqdm.tqdm if disable or sys.stderr.isatty() else _Lines
  options = {'unit': 'item', **options} | {key: plain(value) for key, value in options.items() if key == 'desc'}
  return kind(iterable, disable=disable, mininterval=0.5, dynamic_ncols=True, **options)


class _Lines(tqdm.tqdm):
  """Lines of their own, by a clock of their own: there is one even where no item gets done."""

  def __init__(self, *inputs: Any, **options: Any):
    self._said, self._closed = False, threading.Event()
    super().__init__(*inputs, file=io.StringIO(), **options)
    threading.Thread(target=self._speak, daemon=True).start()

  def display(self, *_: Any, **__: Any) -> None:
    pass  # There is no bar.

  def close(self) -> None:
    if self._said and not self._closed.is_set():
      self._say()
    self._closed.set()
    super().close()

  def _speak(self) -> None:
    while not self._closed.wait(SECONDS):
      self._said = True
      self._say()

  def _say(self) -> None:
    rate = (self.n - self.initial) / self.format_dict['elapsed']
    text = f'{self.desc}: {self.n:,}' + (f' of {self.total:,}' if self.total else '') + f' {self.unit}s'
    text += f', {rate:,.1f} a second' if rate >= 1 else f', {60 * rate:,.1f} a minute'
    if self.total and rate:
      text += f', {self.format_interval((self.total - self.n) / rate)} left'
    if self.postfix:
      text += f", {self.postfix.replace('=', ' ')}"
    print(plain(text), file=sys.stderr, flush=True)
