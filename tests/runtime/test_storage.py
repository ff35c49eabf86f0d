"""Files of a workdir: the same code on a local path and under gs://, whole or not at all, with failures in words."""

import contextlib
import http
import importlib.util
import json
import logging
import os
import resource
import socket
import subprocess
import urllib.request

import jax
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.reports.page import write_report
from fer_jax.runtime import cluster, storage
from fer_jax.training import evaluation, loop, setup
from fer_jax.training.data import Data
from fer_jax.training.metrics_log import MetricsLog
from fer_jax.training.workdir import open_workdir, read_config, read_run
from tests import faces


def conditional(handle):
  """Adds to a handler of the emulator what TensorStore relies on: generations, and requests that depend on them."""

  def handle_conditionally(request, response, storage):
    name = request.params.get('object_id') or request.query.get('name', [''])[0]
    here = storage.objects.get(request.params.get('bucket_name'), {}).get(name, {}).get('generation', '0')
    if request.query.get('ifGenerationMatch', [here]) != [here]:
      response.status = http.HTTPStatus.PRECONDITION_FAILED
    elif request.query.get('ifGenerationNotMatch') == [here]:
      response.status = http.HTTPStatus.NOT_MODIFIED
    else:
      response['x-goog-generation'] = here
      handle(request, response, storage)

  return handle_conditionally


@pytest.fixture(scope='module')
def bucket():
  """The address of an emulator of Google's storage in this process, with the empty gs://bucket, for all who ask."""
  for package in ('gcp_storage_emulator', 'gcsfs'):
    pytest.importorskip(package, reason=f'gs:// was not tested: {package} is not installed')
  from gcp_storage_emulator import server
  with socket.create_server(('localhost', 0)) as free:
    port = free.getsockname()[1]
  url = f'http://localhost:{port}'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(server, 'HANDLERS', [
        (path, {method: conditional(handle) for method, handle in methods.items()})
        for path, methods in server.HANDLERS])
    for name, value in {'STORAGE_EMULATOR_HOST': url, 'TENSORSTORE_GCS_HTTP_URL': url, 'NO_GCE_CHECK': 'true',
                        'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'none', 'GOOGLE_CLOUD_PROJECT': 'none'}.items():
      patch.setenv(name, value)
    logging.getLogger('gcsfs').setLevel(logging.ERROR)  # It asks for credentials first, and warns that there are none.
    emulator = server.create_server('localhost', port, in_memory=True, default_bucket='bucket')
    emulator.start()
    yield url
    emulator.stop()


@pytest.fixture(params=['local', 'gs'])
def folder(request, tmp_path):
  """A folder that is not there yet."""
  if request.param == 'local':
    return storage.as_path(tmp_path / 'run')
  request.getfixturevalue('bucket')
  return storage.as_path(f'gs://bucket/{tmp_path.name}/run')


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read(folder):
  assert not folder.exists()
  arrays = {'a': np.arange(6, dtype=np.int16).reshape(2, 3), 'when/b': np.array(['x', 'ü'])}
  storage.write_text(folder / 'a/b.txt', 'Gesichter, größer\n')
  storage.write_json(folder / 'c.json', {'x': [1, None, 'ü']})
  storage.write_npz(folder / 'd.npz', **arrays)
  assert storage.read_text(folder / 'a/b.txt') == 'Gesichter, größer\n'
  assert storage.read_json(folder / 'c.json') == {'x': [1, None, 'ü']}
  found = storage.read_npz(folder / 'd.npz')
  assert found.keys() == arrays.keys() and found['a'].dtype == np.int16
  for name, values in arrays.items():
    np.testing.assert_array_equal(found[name], values)
  storage.write_text(folder / 'a/b.txt', 'anew')
  assert storage.read_text(folder / 'a/b.txt') == 'anew'
  assert names(folder) == ['a', 'c.json', 'd.npz'] and names(folder / 'a') == ['b.txt']  # Nothing is left beside.


def test_lines_are_appended(folder):
  for line in ('1\n', '2\n', 'ü\n'):
    storage.append(folder / 'metrics.jsonl', line)
  assert storage.read_text(folder / 'metrics.jsonl') == '1\n2\nü\n'


def test_numbers_that_are_not_finite_are_null(tmp_path):
  values = {'a': float('nan'), 'b': [1.5, (float('inf'), np.float64('-inf'))], 'c': {'d': np.float64('nan')}, 'e': True}
  storage.write_json(tmp_path / 'file.json', values)
  strict = json.loads((tmp_path / 'file.json').read_text(), parse_constant=pytest.fail)
  assert strict == {'a': None, 'b': [1.5, [None, None]], 'c': {'d': None}, 'e': True}
  log = MetricsLog(tmp_path / 'metrics.jsonl')
  log.write(1, 'valid', {'accuracy': 0.5, 'nll': float('nan')})
  assert (tmp_path / 'metrics.jsonl').read_text() == '{"step": 1, "kind": "valid", "accuracy": 0.5, "nll": null}\n'
  # What else a crash has left there is dropped when the run goes on.
  left = ('[]', '{"kind": "train"}', '\0\0', '{"step": "2"}', '{"step": 2}', '{"step": 1}', '{"st')
  storage.append(tmp_path / 'metrics.jsonl', '\n'.join(left))
  log.forget_after(1)
  assert [json.loads(line)['step'] for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()] == [1, 1]


def test_only_process_0_writes(folder, monkeypatch):
  storage.write_text(folder / 'kept.txt', 'kept')
  monkeypatch.setattr(cluster, 'is_main', lambda: False)
  storage.write_text(folder / 'kept.txt', 'other')
  storage.write_json(folder / 'sub/a.json', 1)
  storage.write_npz(folder / 'a.npz', a=np.zeros(1))
  storage.append(folder / 'kept.txt', 'more')
  assert write_report(folder) == folder / 'report.html'
  assert names(folder) == ['kept.txt'] and storage.read_text(folder / 'kept.txt') == 'kept'  # All of them may read.


def test_absent_and_damaged_files_are_told_apart(folder):
  storage.write_npz(folder / 'whole.npz', a=np.arange(1000))
  content = (folder / 'whole.npz').read_bytes()
  for i, damaged in enumerate((content[:100], content[:-10], b'', b'text', content.replace(b'PK', b'KP'))):
    (folder / f'{i}.npz').write_bytes(damaged)
    with pytest.raises(ValueError, match=f'{i}.npz is damaged'):
      storage.read_npz(folder / f'{i}.npz')
  storage.write_text(folder / 'cut.json', '{"a": ')
  with pytest.raises(ValueError):
    storage.read_json(folder / 'cut.json')
  for read in (storage.read_text, storage.read_json, storage.read_npz):
    with pytest.raises(FileNotFoundError):
      read(folder / 'absent')


def test_a_workdir_is_claimed_once(folder):
  record = open_workdir(setup.settings(faces.config()), folder, ['--config.seed=0'])
  assert read_run(folder) == record == open_workdir(setup.settings(faces.config()), folder, [])
  assert read_config(folder).to_json_best_effort() == faces.config().to_json_best_effort()
  with pytest.raises(UserError, match='holds a run of another config: seed is 0 there, 1 here'):
    open_workdir(setup.settings(faces.config(seed=1)), folder, [])


def test_a_start_that_was_cut_off_is_no_other_run(folder):
  for name in ('compile_cache/program', 'run.json', 'config.json.part'):
    storage.write_text(folder / name, 'half')
  assert open_workdir(setup.settings(faces.config()), folder, [])['name'] == 'pal'
  storage.write_text(folder.parent / 'photos/a.txt', '')
  with pytest.raises(UserError, match='photos is not empty and holds no run'):
    open_workdir(setup.settings(faces.config()), folder.parent / 'photos', [])


@contextlib.contextmanager
def largest_file(size):
  """No file of this process may grow beyond ``size`` bytes."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


KEPT = 'What was saved before is kept; '


def test_a_full_disk_keeps_what_was_there(tmp_path):
  path = tmp_path / 'run.json'
  storage.write_json(path, {'step': 1})
  beside = tmp_path / 'run.json.part'
  beside.symlink_to('/dev/full')
  with pytest.raises(UserError, match=f'cannot write {path}: No space left on device. {KEPT}make room'):
    storage.write_json(path, {'step': 2})
  assert os.listdir(tmp_path) == ['run.json'] and storage.read_json(path) == {'step': 1}
  with largest_file(10_000), pytest.raises(UserError, match=f'cannot write {path}: File too large. {KEPT}make room'):
    storage.write_json(path, {'step': list(range(10_000))})
  assert os.listdir(tmp_path) == ['run.json'] and storage.read_json(path) == {'step': 1}
  storage.write_json(path, {'step': 2})
  assert storage.read_json(path) == {'step': 2}
  with pytest.raises(UserError, match='cannot write /dev/full: No space left on device'):
    storage.append('/dev/full', 'a line')


@pytest.fixture
def read_only(tmp_path):
  """A folder that holds a run and that nobody may write to, root neither."""
  folder = tmp_path / 'mounted'
  folder.mkdir()
  mount = lambda *options: subprocess.run(['mount', *options, str(folder)], capture_output=True, text=True)
  mounted = os.geteuid() == 0
  if mounted and (done := mount('-t', 'tmpfs', '-o', 'size=1m', 'tmpfs')).returncode:
    pytest.skip(f'a read-only folder was not tested: root may write everywhere, and cannot mount here: {done.stderr}')
  open_workdir(setup.settings(faces.config()), folder, [])
  if mounted:
    assert not mount('-o', 'remount,ro').returncode
  else:
    folder.chmod(0o500)
  yield folder
  if mounted:
    assert not subprocess.run(['umount', str(folder)]).returncode
  else:
    folder.chmod(0o700)


def test_a_read_only_folder_is_named(read_only):
  begun = (read_only / 'run.json').read_bytes()
  reason = '(Read-only file system|Permission denied)'
  message = f'cannot write {read_only}.*: {reason}. {KEPT}get the permission to write there'
  for write in (lambda path: storage.write_text(path, 'x'), lambda path: storage.append(path, 'x'), write_report):
    with pytest.raises(UserError, match=message):
      write(read_only / 'run.json' if write != write_report else read_only)
  with pytest.raises(UserError, match=f'cannot write {read_only}/new.*: {reason}'):
    open_workdir(setup.settings(faces.config()), read_only / 'new', [])
  assert open_workdir(setup.settings(faces.config()), read_only, []) == json.loads(begun)  # It can still be read.
  assert (read_only / 'run.json').read_bytes() == begun


def test_a_file_where_a_folder_should_be(tmp_path):
  (tmp_path / 'file').write_text('')
  for workdir in (tmp_path / 'file', tmp_path / 'file/run'):
    with pytest.raises(UserError, match=r'file.*: Not a directory\. '):
      open_workdir(setup.settings(faces.config()), workdir, [])


def test_other_kinds_of_paths(monkeypatch):
  for path in ('s3://bucket/run', 'http://host/run', 'gs:/bucket/run'):
    with pytest.raises(UserError, match=f'{path}: give a local path, or one that begins with gs://'):
      storage.as_path(path)
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r'gs://bucket/run: .*pip install "fer_jax\[gcs\]"'):
    storage.as_path('gs://bucket/run')
  assert str(storage.as_path('runs/a')) == 'runs/a'


def test_paths_from_the_root(bucket, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert str(storage.absolute('runs/a')) == str(tmp_path / 'runs/a')
  assert str(storage.absolute('gs://bucket/a')) == 'gs://bucket/a'


def test_a_bucket_that_is_not_there(bucket):
  with pytest.raises(UserError, match=f'cannot write gs://absent/run/a.txt: .*{KEPT}check that the bucket exists'):
    storage.write_text('gs://absent/run/a.txt', 'a')


def test_what_another_process_writes_is_seen(bucket):
  folder = storage.as_path('gs://bucket/shared')
  storage.write_text(folder / 'mine', '')
  assert names(folder) == ['mine'] and not (folder / 'theirs').exists()
  urllib.request.urlopen(f'{bucket}/upload/storage/v1/b/bucket/o?uploadType=media&name=shared/theirs', b'theirs')
  assert (folder / 'theirs').exists() and names(folder) == ['mine', 'theirs']


def test_a_run_in_a_bucket_is_the_same_run(bucket, tmp_path, monkeypatch):
  splits = {'train': faces.source(24, seed=0), 'valid': faces.source(8, seed=1), 'test': faces.source(8, seed=2)}
  monkeypatch.setattr(Data, 'open', lambda self, split: splits[split])
  config, mesh = faces.config(log_every=1, checkpoint_every=0.4, losses__pal__weight=0.0), cluster.make_mesh()
  trained, lines, files = [], [], []
  for workdir in (storage.as_path(tmp_path / 'run'), storage.as_path('gs://bucket/whole/run')):
    result = loop.train(config, workdir)
    assert result['count'] == 8 and loop.train(config, workdir) == json.loads(json.dumps(result))
    trained.append(setup.load(workdir, mesh))
    found = [json.loads(line) for line in storage.read_text(workdir / 'metrics.jsonl').splitlines()]
    lines.append([(line['step'], line['kind'], line.get('loss')) for line in found])
    files.append([names(folder) for folder in (workdir, workdir / 'evaluation', workdir / 'checkpoints')])
  assert evaluation.evaluate_run(workdir)['protocol']['evaluations'] == 2
  for name in ('best', 'lock'):  # One is empty, and there are no empty folders in a bucket, nor locks.
    files[0][0].remove(name)
  # Which one is kept beside the last depends on how long a save took.
  assert [kept.pop(2)[-1] for kept in files] == ['3', '3'] and files[0] == files[1]
  assert lines[0] == lines[1] and len(lines[0]) == 4
  local, remote = trained
  assert local.step == remote.step == 3
  jax.tree.map(np.testing.assert_array_equal, local.variables, remote.variables)
