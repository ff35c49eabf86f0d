"""Prepared data that are damaged or not their own are told in a sentence; those of an earlier version are read."""

import json
import os
import shutil

import numpy as np
import pytest

from configs import baseline
from fer_jax.data.preparing import contents, preparation
from fer_jax.data.reading import splits
from fer_jax.errors import UserError
from fer_jax.training import setup

SHARD = 'synthetic_faces-train.array_record-00000-of-00001'


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  path = tmp_path_factory.mktemp('prepared')
  preparation.prepare(preparation.make_builder('synthetic_faces', 'tiny', str(path), workers=0))
  return path


@pytest.fixture
def folder(prepared, tmp_path):
  """The folder of a data set of its own."""
  shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
  return tmp_path / 'synthetic_faces/tiny/1.0.0'


def open_train(folder):
  return splits.open_split('synthetic_faces', 'tiny', 'train', str(folder.parents[2]))


def edit(folder, change, file='contents.json', sign=True):
  """Changes a JSON file; its digest fits again if it is to be signed."""
  told = json.loads((folder / file).read_text())
  change(told)
  if sign:
    told['digest'] = contents.digest(told, told['splits'])
    told['checksum'] = contents.checksum(told)
  (folder / file).write_text(json.dumps(told))


def forget(told):
  """What an earlier version did not write."""
  del told['drawing'], told['checksum']
  for facts in told['splits'].values():
    del facts['files'], facts['channels'], facts['images']


def flip(folder, at=0.5):
  """Zeros 40 bytes of the shard."""
  with open(folder / SHARD, 'r+b') as file:
    file.seek(int(os.path.getsize(folder / SHARD) * at))
    file.write(bytes(40))


DAMAGES = {
    'shard removed': (lambda folder: (folder / SHARD).unlink(), f'{SHARD} is missing'),
    'shard cut off': (lambda folder: os.truncate(folder / SHARD, 2000), f'{SHARD} has 2,000 bytes, and .* were'),
    'shard grown': (lambda folder: (folder / SHARD).open('ab').write(b'x'), f'{SHARD} has .* bytes, and'),
    'shard of another split': (lambda folder: shutil.copy(folder / SHARD.replace('train', 'test'), folder / SHARD),
                               f'{SHARD} has .* bytes, and'),
    'info cut off': (lambda folder: (folder / 'dataset_info.json').write_text('{'), 'dataset_info.json cannot be read'),
    'info of nothing': (lambda folder: (folder / 'dataset_info.json').write_text('[]'), 'dataset_info.json cannot be'),
    'no info': (lambda folder: (folder / 'dataset_info.json').unlink(), 'dataset_info.json is missing or cannot be'),
    'a split less': (lambda folder: edit(folder, lambda told: told['splits'].pop(), 'dataset_info.json', sign=False),
                     'do not name the same splits and faces'),
    'no contents': (lambda folder: (folder / 'contents.json').unlink(), 'contents.json is missing or damaged'),
    'contents cut off': (lambda folder: os.truncate(folder / 'contents.json', 300), 'contents.json is missing or dam'),
    'contents of nothing': (lambda folder: (folder / 'contents.json').write_text('[]'), 'contents.json is missing or'),
    'contents changed': (lambda folder: edit(folder, lambda told: told.update(variant='default'), sign=False),
                         'contents.json is missing or damaged'),
    'a count changed': (lambda folder: edit(folder, lambda told: told['splits']['test'].update(channels={'1': 32}),
                                            sign=False), 'contents.json is missing or damaged'),
    'contents not theirs': (lambda folder: edit(folder, lambda told: told.update(dataset='rafdb')),
                            'its contents.json is that of rafdb, variant tiny'),
    'no digests': (lambda folder: (folder / 'images.npz').unlink(), 'images.npz is missing'),
    'old, cut off': (lambda folder: (edit(folder, forget), os.truncate(folder / SHARD, 70_000)), 'cannot be read'),
    'old, removed': (lambda folder: (edit(folder, forget), (folder / SHARD).unlink()), 'cannot be read .*No such file'),
}


@pytest.mark.parametrize('name', DAMAGES)
def test_damages_are_told_wherever_the_data_are_opened(folder, name):
  hurt, said = DAMAGES[name]
  hurt(folder)
  for use in (open_train, lambda folder: preparation.make_builder('synthetic_faces', 'tiny', str(folder.parents[2]))):
    with pytest.raises(UserError, match=said) as e:
      use(folder)
    assert str(folder) in str(e.value) and 'Remove the folder and prepare' in str(e.value)


@pytest.mark.parametrize('shut, hurt', [
    ('contents.json', 'contents.json'), ('images.npz', 'images.npz'), ('', 'images.npz'), (SHARD, SHARD)])
def test_data_that_may_not_be_read_are_not_to_be_removed(folder, monkeypatch, shut, hurt):
  (folder / hurt).write_bytes(b'')  # Stands for what a reader without the permission sees; the tests may be root's.
  monkeypatch.setattr(os, 'access', lambda path, mode: os.fspath(path) != os.fspath(folder / shut))
  with pytest.raises(UserError, match='cannot be read: permission denied. Get the permission') as e:
    len(open_train(folder).images)
  assert str(folder / shut) in str(e.value) and 'emove' not in str(e.value)


def test_a_folder_of_data_that_may_not_be_looked_into_is_not_unprepared(folder, monkeypatch):
  root = os.fspath(folder.parents[2])
  monkeypatch.setattr(os, 'access', lambda path, mode: os.fspath(path) != root)
  with pytest.raises(UserError, match=f'{root} cannot be read: permission denied'):
    preparation.make_builder('synthetic_faces', 'default', root)


@pytest.mark.parametrize('place', ['~nobody-of-this-name/data', 'file:///data', 'http://host/data', 's3://bucket/data'])
def test_places_that_are_none_are_named(place):
  with pytest.raises(UserError, match='there is no user|give a local path'):
    preparation.make_builder('synthetic_faces', 'tiny', place)


def test_damages_that_leave_the_size_are_told_where_they_are_read(folder):
  flip(folder)
  split = open_train(folder)
  with pytest.raises(UserError, match=r'is damaged: record \d+ of 64 cannot be read .*Remove the folder'):
    for row in range(len(split)):
      split.example(row)
  with pytest.raises(UserError, match='the records of train cannot be read .*Remove the folder'):
    preparation.verify(preparation.make_builder('synthetic_faces', 'tiny', str(folder.parents[2])))


def test_verify_finds_records_that_are_others(folder):
  edit(folder, lambda told: told['splits']['test'].update(digest='0' * 64))
  builder = preparation.make_builder('synthetic_faces', 'tiny', str(folder.parents[2]))
  with pytest.raises(UserError, match='the records of test are not those that were written'):
    preparation.verify(builder)
  (folder / 'images.npz').write_bytes((folder / 'images.npz').read_bytes()[:-40])
  with pytest.raises(UserError, match='its images.npz is missing or cannot be read.*Remove the folder and prepare'):
    preparation.verify(builder)
  np.savez(folder / 'images.npz', train=np.arange(64, dtype=np.uint64), valid=np.arange(32), test=np.arange(32))
  for use in (lambda: preparation.verify(builder), lambda: open_train(folder).images):  # It decides what was seen.
    with pytest.raises(UserError, match='its images.npz is of other data'):
      use()
  with pytest.raises(UserError, match='synthetic_faces is not prepared'):
    preparation.verify(preparation.make_builder('synthetic_faces', 'default', str(folder.parents[2])))


def test_data_of_an_earlier_version_are_read(folder):
  new = open_train(folder)
  edit(folder, forget)
  old = open_train(folder)
  assert len(old) == len(new) == 64 and old.channels == new.channels == 3
  np.testing.assert_array_equal(old.example(5)['image'], new.example(5)['image'])
  builder = preparation.make_builder('synthetic_faces', 'tiny', str(folder.parents[2]))
  assert 'deep images (16 bits) white' in preparation.summary(builder)
  assert 'as it was written' in preparation.verify(builder)


def test_contents_count_channels_and_files(folder):
  facts = contents.read(folder)['splits']['train']
  assert facts['channels'] == {'3': 64} and facts['files'] == {SHARD: os.path.getsize(folder / SHARD)}


@pytest.mark.parametrize('counts, expected', [
    ({'train': {'1': 63, '3': 1}, 'test': {'1': 32}}, (3, 3, 3, 3)),
    ({'train': {'1': 64}, 'test': {'3': 32}}, (1, 1, 1, 1)),  # A net that is trained on grey faces is tested on such.
    ({'train': {'3': 1, '1': 63}, 'valid': {'1': 32}}, (3, 3, 3, 3)),
    ({'train': None, 'test': {'1': 32}}, (3, 3, 3, 3)),  # Not counted by an earlier version: the heads are read.
])
def test_the_training_split_decides_the_channels_of_every_split(folder, capsys, counts, expected):
  def set_counts(told):
    for name, channels in counts.items():
      told['splits'][name]['channels'] = channels
      if channels is None:
        del told['splits'][name]['channels']

  edit(folder, set_counts)
  config = baseline.get_config('synthetic_faces')
  config.data.update({'variant': 'tiny', 'dir': str(folder.parents[2]), 'train': 'train[:8]', 'size': 32})
  config.sources = {'more': {'split': 'valid', 'supervision': 'labels'}}
  data = setup.make_protocol(config).data
  parts = data.open_parts()
  opened = [parts[0].source, parts[1].source, data.open('test[:9]'), data.open('valid')]
  assert tuple(split.channels for split in opened) == expected
  assert tuple(split.example(0)['image'].shape[-1] for split in opened) == expected
  mixed = len(counts['train'] or ()) > 1
  assert capsys.readouterr().out.count('train: 1 image(s) in colour, 63 grey') == mixed  # It is told once.
  config.data.channels = 1
  assert setup.make_protocol(config).data.open('test').channels == 1
  config.data.channels = 4
  with pytest.raises(UserError, match='config.data.channels=4: give 1'):
    setup.make_protocol(config)
