"""Splits that are decoded once: what the table holds, who makes it, where, and what goes wrong."""

import collections
import dataclasses
import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from fer_jax.data.reading import splits, tables
from fer_jax.errors import UserError
from tests.processes import Process

FIELDS = ['image', 'label', 'landmark_heatmap', 'target']


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """A folder with the tiny synthetic faces."""
  path = str(tmp_path_factory.mktemp('prepared'))
  open_split(path, prepare_if_missing=True)
  return path


def open_split(data_dir, split='train', **options):
  return splits.open_split('synthetic_faces', 'tiny', split, str(data_dir), **options)


@pytest.fixture
def prepared(data_dir, tmp_path):
  """The same without any table."""
  shutil.copytree(data_dir, tmp_path / 'data', ignore=shutil.ignore_patterns('tables'))
  return tmp_path / 'data'


def assert_decoded(split, rows=(0, 3, 2)):
  for name, values in split.take(np.array(rows), FIELDS).items():
    for row, value in zip(rows, values, strict=True):
      np.testing.assert_array_equal(value, split.example(row)[name])
      assert value.dtype == split.example(row)[name].dtype


def written(data_dir):
  return {path.relative_to(data_dir): path.stat().st_mtime_ns for path in Path(data_dir).rglob('tables/*/*.npy')}


def test_a_table_is_written_once_and_holds_what_is_decoded(prepared, capsys, monkeypatch):
  split = open_split(prepared)
  split.tabulate(FIELDS)
  assert_decoded(split)
  first = written(prepared)
  assert {path.stem for path in first} == set(FIELDS)
  assert f'Decoding {len(split):,} faces once' in capsys.readouterr().out
  again = open_split(prepared)
  decoded = collections.Counter()
  monkeypatch.setattr(again, 'example', lambda *_: decoded.update(['row']))
  again.tabulate(FIELDS[:2])
  assert not decoded and written(prepared) == first and capsys.readouterr().out == ''
  assert not again.tabulate(FIELDS[:1])['image'].flags.writeable
  # A field that came later is decoded alone, and another split, or another form of it, is another table.
  split.tabulate(['action_unit_map'])
  assert first.items() < written(prepared).items() and len(written(prepared)) == 5
  for other in (open_split(prepared, 'valid'), open_split(prepared, size=24), open_split(prepared, channels=1),
                open_split(prepared, maps={'landmark_heatmap': {'points': 'all'}}),
                open_split(prepared, classes=['happiness', 'anger'])):
    other.tabulate(FIELDS)
    assert_decoded(other)
  assert len(written(prepared)) == 5 + 5 * len(FIELDS)


def test_several_processes_decode(prepared, monkeypatch):
  monkeypatch.setattr(tables, '_ALONE', 0)
  monkeypatch.setattr(tables, '_PART', 7)
  split = open_split(prepared)
  split.tabulate(FIELDS)
  assert_decoded(split, range(len(split)))


def test_a_face_that_cannot_be_decoded_leaves_no_table(prepared):
  split = open_split(prepared)
  split.records = [*split.records]
  split.records[-1] = split.records[-1] | {'image': b'no image'}
  with pytest.raises(UserError, match='its image cannot be decoded'):
    split.tabulate(FIELDS)
  assert [path.name for path in Path(prepared).rglob('tables/*/*')] == ['lock']


def test_what_a_killed_process_left_is_removed_and_damage_is_told(prepared):
  split = open_split(prepared)
  table, = {path.parent for path in map(Path, written_by(split))}
  (table / 'image.123').write_bytes(b'x' * 100)
  split.tabulate(['action_unit_map'])
  assert not (table / 'image.123').exists()
  (table / 'image.npy').write_bytes((table / 'image.npy').read_bytes()[:-10])
  with pytest.raises(UserError, match=f'{table} is damaged .*: remove it, and the same command decodes'):
    open_split(prepared).tabulate(FIELDS)


def written_by(split):
  split.tabulate(FIELDS)
  return Path(split.folder).rglob('tables/*/*.npy')


def test_no_room(prepared, monkeypatch):
  monkeypatch.setattr(shutil, 'disk_usage', lambda folder: shutil._ntuple_diskusage(100, 99, 1))
  with pytest.raises(UserError, match=r'faces take \d+ MB decoded, and .*tables.* has room for 0 MB: make room, or '
                                      r'train with --config.data.table=False'):
    open_split(prepared).tabulate(FIELDS)


def test_where_the_data_cannot_be_written_or_are_somebodys_photographs(prepared, tmp_path, monkeypatch):
  temporary = tmp_path / 'temporary'
  temporary.mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(temporary))
  split = open_split(prepared)
  (Path(split.folder) / 'tables').write_text('A file, so that there can be no such folder.')
  split.tabulate(FIELDS)
  assert_decoded(split)
  assert len(list(temporary.rglob('*.npy'))) == len(FIELDS)
  photos = dataclasses.replace(split, folder=str(tmp_path / 'photos'), digest='', fingerprint='photos')
  (tmp_path / 'photos').mkdir()
  photos.tabulate(FIELDS)
  assert not list((tmp_path / 'photos').iterdir())
  other = os.getuid() + 1
  monkeypatch.setattr(os, 'getuid', lambda: other)
  (temporary / f'fer_jax_tables_{other}').mkdir()
  with pytest.raises(UserError, match='fer_jax_tables_.* is not yours; set TMPDIR'):
    open_split(prepared, 'valid').tabulate(FIELDS)


def test_a_script_that_its_workers_would_run_again_is_told(prepared, monkeypatch):
  monkeypatch.setattr(multiprocessing.current_process(), '_inheriting', True, raising=False)
  with pytest.raises(UserError, match='put what it does below the line `if __name__'):
    open_split(prepared).tabulate(FIELDS)


def read_all(data_dir, folder):
  """Reads a whole table and writes how much of it is this process's share, then waits."""
  rows = open_split(data_dir, 'train').tabulate(FIELDS)['image']
  rows.sum()
  share, mapping = 0, False
  while len(list(Path(folder).iterdir())) < 8:  # All have read it.
    (Path(folder) / f'{os.getpid()}').touch()
    time.sleep(0.02)
  for line in Path('/proc/self/smaps').read_text().splitlines():
    if '-' in line.split()[0]:
      mapping = line.endswith('/image.npy')
    share += int(line.split()[1]) * 1024 if mapping and line.startswith('Pss:') else 0
  (Path(folder) / f'{os.getpid()}').write_text(str(share))
  while any(not path.read_text() for path in Path(folder).iterdir()):
    time.sleep(0.02)


@pytest.mark.skipif(not Path('/proc/self/smaps').exists(), reason='the kernel does not tell what processes share')
def test_eight_processes_hold_a_split_once(prepared, tmp_path):
  size = open_split(prepared).tabulate(FIELDS)['image'].nbytes
  shares = tmp_path / 'shares'
  shares.mkdir()
  readers = [Process(read_all, str(prepared), str(shares), data_dir=prepared) for _ in range(8)]
  for reader in readers:
    out = reader.communicate(60)
    assert reader.returncode == 0, out
  told = [int(path.read_text()) for path in shares.iterdir()]
  assert len(told) == 8 and all(told)
  assert sum(told) < 1.2 * size + 8 * 8192


def test_an_array_is_made_once_and_again_where_it_is_damaged(tmp_path):
  made = []
  folder = {'folder': str(tmp_path)}
  keep = lambda about: tables.keep(about | folder, lambda: made.append(about) or np.arange(3) + about['first'])
  for first in (0, 5, 0):
    np.testing.assert_array_equal(keep({'first': first}), np.arange(3) + first)
  assert [about['first'] for about in made] == [0, 5]
  for left in (b'', b'no array'):
    for path in Path(tmp_path, 'tables').iterdir():
      path.write_bytes(left)
    np.testing.assert_array_equal(keep({'first': 0}), np.arange(3))
  assert [about['first'] for about in made] == [0, 5, 0, 0]
  assert tables.keep(folder, lambda: None) is None and not list(Path(tmp_path, 'tables').glob('*.[!n]*'))
