"""What tells a training to leave, and with which status it does."""

import os
import signal

import jax
import pytest

from fer_jax.runtime import cluster
from fer_jax.runtime.preemption import Preemption

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CASES = [(signal.SIGTERM, 75, 'SIGTERM'), (signal.SIGINT, 130, 'Ctrl-C'), (signal.SIGHUP, 129, 'SIGHUP')]


@pytest.fixture(autouse=True)
def handlers():
  before = {number: signal.getsignal(number) for number in SIGNALS}
  # Also where the tests are run in the background, or by nohup.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGHUP, signal.SIG_DFL)
  yield
  for number, handler in before.items():
    signal.signal(number, handler)


def tell(number):
  os.kill(os.getpid(), number)


@pytest.mark.parametrize('number, status, word', CASES)
def test_it_leaves_at_the_next_step_with_the_status_of_what_told_it(number, status, word):
  before = [signal.getsignal(one) for one in SIGNALS]
  with Preemption() as preemption:
    assert not preemption.reached()
    tell(number)
    assert preemption.reached() and (preemption.status, preemption.word) == (status, word)
    # Once more ends it at once; SIGTERM may be sent twice, by a platform and its launcher.
    assert (signal.getsignal(number) == signal.SIG_DFL) == (number != signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
      preemption.saved()
    assert end.value.code == status
  assert [signal.getsignal(one) for one in SIGNALS] == before


@pytest.mark.parametrize('number, status, word', CASES)
def test_when_all_is_saved_it_leaves_at_once_and_says_so(number, status, word, capsys):
  with pytest.raises(SystemExit) as end:
    with Preemption() as preemption:
      preemption.saved()
      tell(number)
      pytest.fail('it went on')
  assert end.value.code == status
  assert capsys.readouterr().out == f'{word}: training is saved; the same command goes on from its end.\n'


def test_what_is_ignored_stays_ignored():
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
  with Preemption() as preemption:
    tell(signal.SIGINT)
    tell(signal.SIGHUP)
    assert not preemption.reached()


def test_of_several_processes_ctrl_c_is_handed_to_the_service(monkeypatch):
  handed = []
  signal.signal(signal.SIGTERM, lambda number, _: handed.append(number))  # In place of JAX's.
  monkeypatch.setattr(jax.distributed, 'is_initialized', lambda: True)
  with Preemption() as preemption:
    tell(signal.SIGINT)
    assert handed == [signal.SIGTERM] and preemption.status == 130
    assert not preemption.reached()  # The service says when, to all of them.
    preemption.saved()
    left = []
    monkeypatch.setattr(cluster, 'abandon', lambda *arguments: left.append(arguments))
    with pytest.raises(SystemExit):
      preemption._tell(signal.SIGHUP, None)
    assert left == [(130, 'Ctrl-C')]
