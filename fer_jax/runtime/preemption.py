"""Leaving when told to: what asks a training to end, and what its exit status says."""

import os
import signal
import sys
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

from fer_jax.runtime import cluster


class Preemption:
  """SIGTERM, Ctrl-C or a terminal that closes, until the training loop asks. Between its steps nothing is lost by it.

  With several processes JAX's preemption service listens to SIGTERM, and makes all of them agree on a step; the others
  are handed to it. A single one listens here. Who presses Ctrl-C again does not want to wait: that ends the process at
  once. A signal that is ignored, as in the background of a shell, stays so. In the end the handlers of before are back.
  """

  def __init__(self):
    self._told, self._saved, self._asked = 0, False, 0

  def __enter__(self) -> 'Preemption':
    self._before, self._alone = {}, not jax.distributed.is_initialized()
    # Signals reach the main thread only; elsewhere (a test, a notebook's worker) there is nothing to listen to.
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[not self._alone:]:
        if signal.getsignal(number) != signal.SIG_IGN:
          self._before[number] = signal.signal(number, self._tell)
    return self

  def __exit__(self, *_) -> None:
    if self._saved and self._told:
      cluster.say(f'{self.word}: training is saved; the same command goes on from its end.')
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _tell(self, number: int, _: Any) -> None:
    self._told = self._told or number
    if number != signal.SIGTERM:
      signal.signal(number, signal.SIG_DFL)
    if self._saved:
      cluster.abandon(self.status, self.word)
      sys.exit(self.status)
    if not self._alone:
      os.kill(os.getpid(), signal.SIGTERM)

  @property
  def word(self) -> str:
    """What told this process to leave."""
    return 'Ctrl-C' if self._told == signal.SIGINT else 'SIGHUP' if self._told == signal.SIGHUP else 'SIGTERM'

  @property
  def status(self) -> int:
    """The exit status of leaving: PREEMPTED, upon which launchers start again, or that of Ctrl-C and the like."""
    return cluster.PREEMPTED if self._told in (0, signal.SIGTERM) else 128 + self._told

  def reached(self) -> bool:
    """Whether to save and leave: the same answer in all processes. Ask before every dispatch, once."""
    self._asked += 1
    return bool(self._alone and self._told) or multihost_utils.reached_preemption_sync_point(self._asked)

  def saved(self) -> None:
    """From here on everything is saved: a process leaves at once when told to, or if it was told before.

    Of several only Ctrl-C makes them leave; SIGTERM still goes to the service.
    """
    self._saved = True
    if self._alone and self._told:
      sys.exit(self.status)
