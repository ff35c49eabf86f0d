"""Who holds a workdir: one training, whatever names lead there, until it ends and those that it handed the lock to."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from fer_jax.errors import UserError
from fer_jax.runtime import lock
from tests.processes import ROOT


def test_waiting_for_a_lock_ends_when_it_is_let_go(tmp_path):
  code = ('import sys; from fer_jax.runtime.lock import hold\n'
          'with hold(sys.argv[1]): print("held", flush=True); sys.stdin.read()')
  holder = subprocess.Popen([sys.executable, '-c', code, str(tmp_path / 'lock')], cwd=ROOT, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
  assert holder.stdout.readline() == 'held\n'
  assert lock.hold(tmp_path / 'lock') is None
  holder.stdin.close()
  with lock.hold(tmp_path / 'lock', wait=True):
    assert holder.wait() == 0


def test_a_second_training_is_told_who_has_the_workdir_by_whatever_name_it_comes(tmp_path, monkeypatch):
  (tmp_path / 'link').symlink_to(tmp_path / 'run')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  with lock.alone(tmp_path / 'run') as note:
    assert note == ''
    for name in ('run', 'run/', './run/../run', 'link', '~/run'):
      who = rf'in training, .* process {os.getpid()}, 20.*'
      with pytest.raises(UserError, match=rf'^{name} is in use by another training \({who}\): wait for its end,'):
        with lock.alone(name):
          pass
  with lock.alone('link'):
    assert lock.hold('run/lock') is None


def test_a_training_that_is_handed_its_lock_has_it_and_no_other(tmp_path, monkeypatch):
  worker = lock.hold(tmp_path / 'a/lock')
  with pytest.raises(UserError, match='in use by another'):
    with lock.alone(tmp_path / 'a'):
      pass
  monkeypatch.setenv(lock.HANDED, str(worker.fileno()))
  with lock.alone(tmp_path / 'a'), lock.alone(tmp_path / 'b'):  # That of 'b' is its own.
    worker.close()
    monkeypatch.delenv(lock.HANDED)
    assert lock.hold(tmp_path / 'a/lock') is None and lock.hold(tmp_path / 'b/lock') is None  # It outlives the worker.
  lock.hold(tmp_path / 'a/lock').close()
  for stale in ('99', 'none', '-1'):
    monkeypatch.setenv(lock.HANDED, stale)
    with lock.alone(tmp_path / 'a'):
      pass


def test_where_there_are_no_locks_a_training_goes_on_with_a_note(tmp_path, monkeypatch):
  for number in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
    def none(*_, number=number):
      raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, 'flock', none)
    with lock.alone(tmp_path) as note:
      assert note == (f'note: {tmp_path}/lock cannot be locked ({os.strerror(number)}): start no second training in '
                      'this workdir.')
  with lock.alone('gs://bucket/run') as note:  # A bucket never has.
    assert note == ''


def test_a_note_that_finds_no_room_takes_no_lock_away(tmp_path):
  with lock.hold(tmp_path / 'lock') as file:
    lock.write_note(file, 'in training')
    assert lock.read_note(tmp_path / 'lock').startswith('in training, ')
  with open('/dev/full', 'a') as full:
    lock.write_note(full, 'in training')
  assert lock.read_note(tmp_path / 'none') == ''
