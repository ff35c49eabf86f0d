"""Checkpoints: what is damaged or cut off is told and passed over, and a full disk leaves the last good one."""

import contextlib
import shutil
import subprocess
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.runtime import cluster
from fer_jax.training import checkpoint
from fer_jax.training.state import TrainState

MESH = cluster.make_mesh(jax.devices()[:2])


def state(step, size=8):
  rng = np.random.default_rng(step)
  return cluster.replicate(TrainState(jnp.int32(step), {'w': rng.normal(size=size)}, {}, {}, None), MESH)


def saved(folder, *steps):
  """A folder with checkpoints of these steps."""
  checkpoints = checkpoint.Checkpoints(folder, write=True)
  for step in steps:
    checkpoints.save(step, state(step))
  checkpoints.close()
  return folder


@contextlib.contextmanager
def opened(folder, **options):
  checkpoints = checkpoint.Checkpoints(folder, **options)
  yield checkpoints
  checkpoints.close()


def damage(folder, how):
  """Spoils a checkpoint after it was written, as a disk that lost its last writes does."""
  files = [path for path in folder.rglob('*') if path.is_file()]
  if how == 'empty':
    shutil.rmtree(folder)
    folder.mkdir()
  for path in files:
    if how == 'cut':
      path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    if how == 'no data' and '/d/' in str(path):
      path.unlink()
    if how == 'zeros':
      path.write_bytes(bytes(path.stat().st_size))


def test_the_latest_comes_back_and_older_ones_go(tmp_path):
  with opened(saved(tmp_path / 'c', 3, 5, 9)) as checkpoints:
    step, restored = checkpoints.restore_latest(state(0), MESH)
    assert (step, checkpoints.chosen()) == (9, 9)
  np.testing.assert_array_equal(restored.params['w'], state(9).params['w'])
  assert {path.name for path in (tmp_path / 'c').iterdir()} == {'5', '9'}


def test_there_is_none(tmp_path):
  with opened(tmp_path / 'c') as checkpoints:
    assert checkpoints.restore_latest(state(0), MESH) is None and checkpoints.chosen() is None
  assert not (tmp_path / 'c').exists()  # Reading makes no folders.


@pytest.mark.parametrize('how', ['cut', 'empty', 'no data', 'zeros'])
@pytest.mark.parametrize('write', [True, False])
def test_a_damaged_one_is_told_and_the_one_before_is_used(how, write, tmp_path, capsys):
  damage(saved(tmp_path / 'c', 3, 5) / '5', how)
  with opened(tmp_path / 'c', write=write) as checkpoints:
    step, restored = checkpoints.restore_latest(state(0), MESH)
    assert step == 3
    np.testing.assert_array_equal(restored.params['w'], state(3).params['w'])
    told = capsys.readouterr().out
    assert 'step 5' in told and ('cut off' in told or 'step 3 can be restored and is used instead' in told)
    if write:  # Its step will be taken and saved again.
      checkpoints.save(5, state(5))
  if write:
    with opened(tmp_path / 'c') as checkpoints:
      assert checkpoints.restore_latest(state(0), MESH)[0] == 5


def test_a_save_that_was_cut_off_is_told_and_removed(tmp_path, capsys):
  folder = saved(tmp_path / 'c', 3)
  shutil.copytree(folder / '3', folder / '7.orbax-checkpoint-tmp')
  with opened(folder) as checkpoints:  # A reader leaves it: it may be a save that is going on.
    assert checkpoints.restore_latest(state(0), MESH)[0] == 3
  assert 'cut off' not in capsys.readouterr().out and len(list(folder.iterdir())) == 2
  with opened(folder, write=True) as checkpoints:
    assert checkpoints.restore_latest(state(0), MESH)[0] == 3
  assert f'{folder}: saving step 7 was cut off; what is left of it is ignored.' in capsys.readouterr().out
  assert [path.name for path in folder.iterdir()] == ['3']


def test_another_model_is_an_error_and_costs_no_checkpoint(tmp_path):
  with opened(saved(tmp_path / 'c', 3, 5), write=True) as checkpoints:
    with pytest.raises(UserError, match='cannot restore step 5 of .* Use the config the workdir was trained with'):
      checkpoints.restore_latest(state(0, size=9), MESH)
  assert {path.name for path in (tmp_path / 'c').iterdir()} == {'3', '5'}


def test_the_best_by_its_metric(tmp_path):
  with opened(tmp_path / 'b', keep=1, best='accuracy', write=True) as checkpoints:
    for step, accuracy in ((1, 0.2), (2, 0.7), (3, 0.4)):
      checkpoints.save(step, state(step), {'accuracy': accuracy})
  with opened(tmp_path / 'b', best='accuracy') as checkpoints:
    assert checkpoints.chosen() == 2


def steps(folder):
  return {int(path.name) for path in folder.iterdir()}


def test_while_a_save_goes_on_the_next_is_put_off_and_the_newest_state_is_saved(tmp_path, monkeypatch):
  real, begun, free = checkpoint.ocp.CheckpointManager.save, threading.Event(), threading.Event()

  def slow(*arguments, **options):
    begun.set()
    free.wait()
    real(*arguments, **options)

  monkeypatch.setattr(checkpoint.ocp.CheckpointManager, 'save', slow)
  with opened(tmp_path / 'c', keep=9, write=True) as checkpoints:
    checkpoints.offer(1, state(1), due=False)
    assert not begun.is_set()
    checkpoints.offer(2, state(2), due=True)
    begun.wait()
    checkpoints.offer(4, state(4), due=True)  # All of these come back while the first is on its way.
    checkpoints.offer(5, state(5), due=False)
    free.set()
    checkpoints._saving.result()
    checkpoints.offer(6, state(6), due=False)
    checkpoints._saving.result()
    checkpoints.offer(7, state(7), due=False)
    checkpoints.save(8, state(8))
    checkpoints.save(9, state(9))
  assert steps(tmp_path / 'c') == {2, 6, 8, 9}


@pytest.mark.parametrize('minutes, expected', [(10.0, {2, 4, 6}), (0.0, {4})])
def test_saves_by_the_clock(minutes, expected, tmp_path, monkeypatch):
  clock = types.SimpleNamespace(now=1000.0)
  monkeypatch.setattr(checkpoint, 'time', types.SimpleNamespace(monotonic=lambda: clock.now))
  with opened(tmp_path / 'c', keep=9, minutes=minutes, write=True) as checkpoints:
    for step, now in ((1, 599), (2, 600), (3, 1199), (4, 1199), (5, 1798), (6, 1800)):  # The one of step 4 is due.
      clock.now = 1000.0 + now
      checkpoints.offer(step, state(step), due=step == 4)
      if checkpoints._saving:
        checkpoints._saving.result()
  assert steps(tmp_path / 'c') == expected


def test_the_state_may_be_donated_at_once(tmp_path):
  advance = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
  donated = threading.Event()
  with opened(tmp_path / 'c', write=True) as checkpoints:
    now, before = advance(state(3, 100_000)), advance(state(3, 100_000))
    checkpoints._writer.submit(donated.wait)
    checkpoints.save(4, now)
    after = jax.block_until_ready(advance(advance(now)))
    donated.set()
  with opened(tmp_path / 'c') as checkpoints:
    restored = checkpoints.restore(4, after, MESH)
  assert restored.params['w'].sharding.device_set == set(MESH.devices.flat)
  for saved, leaf in zip(jax.tree.leaves(restored), jax.tree.leaves(before), strict=True):
    np.testing.assert_array_equal(saved, leaf, strict=True)


@pytest.mark.parametrize('then', ['offer', 'save', 'close'])
def test_what_fails_in_the_background_is_told_by_the_next_call(then, tmp_path, monkeypatch):
  def full(*_, **__):
    raise OSError(28, 'No space left on device')

  checkpoints = checkpoint.Checkpoints(saved(tmp_path / 'c', 1), write=True)
  monkeypatch.setattr(checkpoint.ocp.CheckpointManager, 'save', full)
  checkpoints.save(2, state(2))
  with contextlib.suppress(OSError):
    checkpoints._saving.result()
  with pytest.raises(UserError, match='cannot save checkpoints in .*/c: No space left on device. What was saved befor'):
    {'offer': lambda: checkpoints.offer(3, state(3), due=False), 'save': lambda: checkpoints.save(3, state(3)),
     'close': checkpoints.close}[then]()
  assert steps(tmp_path / 'c') == {1}


def test_a_run_that_fails_waits_for_what_is_on_its_way(tmp_path):
  with pytest.raises(UserError, match='^a loss became nan$'):
    with checkpoint.Checkpoints(tmp_path / 'c', write=True) as checkpoints:
      checkpoints.save(1, state(1))
      raise UserError('a loss became nan')
  assert steps(tmp_path / 'c') == {1}


def test_a_full_disk_is_told_and_keeps_the_last_good_one(small_disk, tmp_path):
  folder, size = small_disk / 'c', 150_000  # 0.6 MB: one more fits beside what fills the disk below.
  checkpoints = checkpoint.Checkpoints(folder, write=True)
  checkpoints.save(1, state(1, size))
  checkpoints.close()
  (small_disk / 'other').write_bytes(bytes(7_200_000))
  checkpoints = checkpoint.Checkpoints(folder, write=True)
  with pytest.raises(UserError, match=rf'cannot save checkpoints in {folder}: No space left on device. What was saved'):
    for step in (2, 3):  # The second one tells of the first, which goes on in the background.
      checkpoints.save(step, state(step, size))
    checkpoints.close()
  (small_disk / 'other').unlink()
  with opened(folder, write=True) as checkpoints:
    step, restored = checkpoints.restore_latest(state(0, size), MESH)
    assert step == 1
    np.testing.assert_array_equal(restored.params['w'], state(1, size).params['w'])


def test_a_folder_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot open checkpoints in .*file/c: .*What was saved before is kept'):
    checkpoint.Checkpoints(tmp_path / 'file' / 'c', write=True)


def test_a_disk_that_cannot_be_written(small_disk):
  subprocess.run(['mount', '-o', 'remount,ro', str(small_disk)], check=True)
  with pytest.raises(UserError, match='cannot open checkpoints in .*: Read-only file system'):
    checkpoint.Checkpoints(small_disk / 'c', write=True)
