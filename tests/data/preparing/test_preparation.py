"""From listed faces to a data set: the engine that all builders share, on a builder of a few drawn faces."""

import concurrent.futures
import errno
import json
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fer_jax.data import face, image_file
from fer_jax.data.builders.ferplus import ferplus
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.preparing import builder, contents, pool, preparation
from fer_jax.data.preparing.files import File, open_tree
from fer_jax.data.preparing.records import Listed
from fer_jax.data.reading import splits
from fer_jax.errors import UserError
from fer_jax.landmarks import action_units
from fer_jax.runtime import progress

CLASSES = ('happiness', 'neutral')


class Faces(builder.FaceBuilder):
  """Faces in a folder, with landmarks, so that none are looked for."""

  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name='plain', description='All of them.')]
  CLASSES = CLASSES
  COUNTS = {'plain': {'train': (20, 20), 'test': (5,)}}
  pkg_dir_path = ferplus.pkg_dir_path  # TFDS wants a README.md.

  def faces(self, path):
    drawn = [draw_face(np.random.default_rng(i), CLASSES[i % 2], 32) for i in range(2)]
    listed = [Listed(f'{i:02d}.png', File(f'{path}/{i:02d}.png'), i % 2, landmarks=drawn[i % 2].landmarks)
              for i in range(45)]
    return {'train': listed[:40], 'test': listed[40:]}


@pytest.fixture
def source(tmp_path):
  folder = tmp_path / 'source'
  folder.mkdir()
  for i in range(45):
    image = draw_face(np.random.default_rng(i), CLASSES[i % 2], 32).image
    (folder / f'{i:02d}.png').write_bytes(face.png(image).getvalue())
  return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
  monkeypatch.setattr(pool, 'PART', 8)


def make(tmp_path, **options):
  return Faces(**{'data_dir': tmp_path / 'data', 'source': str(tmp_path / 'source'), 'workers': 0,
                  'file_format': 'array_record'} | options)


def left(tmp_path):
  """What lies in the folder of the data set."""
  return sorted(path.name for path in (tmp_path / 'data' / 'faces' / 'plain').glob('*'))


def test_long_work_is_told(source, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(progress, 'SECONDS', 0.01)
  preparation.prepare(make(tmp_path))
  said = [line for line in capsys.readouterr().err.splitlines() if line.startswith('faces: ')]
  assert said[-1].startswith('faces: 45 of 45 faces, ') and said[-1].endswith(', writing test')
  assert len(said) > 2  # Also while TFDS writes.


def test_contents_and_summary(source, tmp_path):
  one = make(tmp_path)
  assert preparation.prepare(one) and not preparation.prepare(one) and left(tmp_path) == ['1.0.0']
  contents = one.contents()
  assert contents['classes'] == list(CLASSES) and contents['variant'] == 'plain' and contents['skipped'] == 0
  assert contents['splits']['train']['labels'] == [20, 20] and contents['splits']['test']['faces'] == 5
  assert contents['splits']['train']['landmarks']['released'] == 40
  lines = {line[:22].strip(): line[22:].split() for line in preparation.summary(one).splitlines()}
  assert lines['faces'] == ['40', '5'] and lines['1 neutral'] == ['20', '2'] and 'unlabelled' not in lines
  record = one.as_data_source('train', decoders={'image': tfds.decode.SkipDecoding()})[0]
  assert record['image'] == (source / record['name'].decode()).read_bytes()
  assert face.LANDMARK_SOURCES[record['landmark_source']] == 'released'


def test_the_digest_is_of_content_and_settings(source, tmp_path):
  digests = []
  def digest(name, **options):
    one = make(tmp_path, data_dir=tmp_path / name, **options)
    preparation.prepare(one)
    digests.append(one.contents()['digest'])
  digest('a')
  digest('b', workers=2)
  digest('c', config='plain-similarity40')
  (source / '07.png').write_bytes(face.png(np.zeros((32, 32, 3), np.uint8)).getvalue())
  digest('d')
  assert digests[0] == digests[1] and len(set(digests)) == 3


def test_paths_may_be_any_text(source, tmp_path):
  source.rename(tmp_path / 'visages é 漢')
  one = make(tmp_path, source=str(tmp_path / 'visages é 漢'), data_dir=tmp_path / 'données 漢')
  preparation.prepare(one)
  assert len(one.as_data_source('train')) == 40 and one.contents()['source'].endswith('visages é 漢')


def test_data_without_contents_are_to_be_prepared_again(source, tmp_path):
  one = make(tmp_path)
  preparation.prepare(one)
  (one.data_path / 'contents.json').write_text('{')
  with pytest.raises(UserError, match='contents.json is missing or damaged.*prepare them again'):
    preparation.summary(one)


def test_what_was_finished_is_not_done_again(source, tmp_path, monkeypatch):
  good = (source / '17.png').read_bytes()
  contents = {path.read_bytes(): path.name for path in source.iterdir()}
  done = []
  read = image_file.read
  monkeypatch.setattr(image_file, 'read', lambda encoded: done.append(contents.get(encoded)) or read(encoded))
  (source / '17.png').write_bytes(good[:300])
  (source / '41.png').write_bytes(b'')
  with pytest.raises(UserError, match=r'images that cannot be used \(2\):') as e:
    preparation.prepare(make(tmp_path))
  assert f'{source}/17.png: unreadable or truncated' in str(e.value) and f'{source}/41.png: empty file' in str(e.value)
  assert len(done) == 45 and left(tmp_path) == ['parts']
  (source / '17.png').write_bytes(good)
  done.clear()
  one = make(tmp_path, strict=False)
  preparation.prepare(one)
  assert done == [f'{i:02d}.png' for i in range(16, 24)]  # The part whose image was replaced.
  assert left(tmp_path) == ['1.0.0'] and one.contents()['skipped'] == 1
  assert (one.data_path / 'skipped.txt').read_text() == f'{source}/41.png: empty file\n'
  assert 'Left out 1 image(s)' in preparation.summary(one)


def test_a_split_of_bad_images_alone(source, tmp_path):
  for i in range(40, 45):
    (source / f'{i}.png').unlink()
  with pytest.raises(UserError, match=r'not one image of test can be used \(5\):\n.*40.png: unreadable .*No such file'):
    preparation.prepare(make(tmp_path, strict=False))
  assert left(tmp_path) == ['parts']


def test_counts_are_those_of_the_official_data(source, tmp_path, monkeypatch):
  monkeypatch.setattr(Faces, 'COUNTS', {'plain': {'train': (19, 21), 'test': (5,), 'valid': (3,)}})
  expected = (r'not as many faces as in the official data \(2\):\n  train: found 40, expected 40 .happiness 20 for 19, '
              r'neutral 20 for 21.\n  valid: found 0, expected 3\n')
  with pytest.raises(UserError, match=expected):
    preparation.prepare(make(tmp_path))
  monkeypatch.setattr(Faces, 'RECALLED', True)
  one = make(tmp_path)
  preparation.prepare(one)
  assert 'valid: found 0, expected 3.' in preparation.summary(one)


def test_a_name_is_listed_once(source, tmp_path, monkeypatch):
  listed = Faces.faces(None, source)
  monkeypatch.setattr(Faces, 'faces', lambda self, path: {**listed, 'train': [*listed['train'], listed['train'][3]]})
  with pytest.raises(UserError, match=r'unlike these \(1\):\n  03.png: 2 times in train'):
    preparation.prepare(make(tmp_path, check_counts=False))


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
  for number in (errno.ENOLCK, errno.EOPNOTSUPP):
    monkeypatch.setattr(preparation.fcntl, 'flock', mock.Mock(side_effect=OSError(number, os.strerror(number))))
    with pytest.raises(UserError, match=f'cannot be locked: {os.strerror(number)}.*another file system') as raised:
      preparation.prepare(make(tmp_path))
    assert 'room' not in str(raised.value)


def test_only_one_process_prepares(tmp_path):
  one = make(tmp_path)
  stale = one.data_path.parent / 'incomplete.ABCDEF_1.0.0'
  stale.mkdir(parents=True)
  (stale / 'part').write_text('')
  with preparation._alone(one, wait=False):
    assert not stale.exists()
    stale.mkdir()  # Now that of the running preparation.
    with pytest.raises(UserError, match='another process is preparing'):
      preparation._alone(one, wait=False).__enter__()
    assert stale.exists()
  with preparation._alone(one, wait=False):
    assert not stale.exists()


def test_processes_that_wait_find_what_one_of_them_has_prepared(source, tmp_path):
  one, two = make(tmp_path), make(tmp_path)
  with concurrent.futures.ThreadPoolExecutor() as pool:
    with preparation._alone(one, wait=False):
      waiting = [pool.submit(preparation.prepare, builder, wait=True) for builder in (one, two)]
      assert not concurrent.futures.wait(waiting, timeout=0.3).done
    assert sorted(done.result() for done in waiting) == [False, True]
  assert len(make(tmp_path).as_data_source('train')) > 0


def test_alignment_carries_landmarks_and_maps(source, tmp_path):
  plain, aligned = make(tmp_path), make(tmp_path, config='plain-similarity40')
  for one in (plain, aligned):
    preparation.prepare(one)
  assert (aligned.variant, aligned.align_size) == ('plain', 40)
  assert aligned.data_path.parent.name == 'plain-similarity40'
  record = aligned.as_data_source('train')[0]
  assert record['image'].shape == (40, 40, 3)
  points = face_points(record['landmarks'])
  # A similarity fits five points of another face only nearly.
  template = np.array([[38.3, 51.7], [73.5, 51.5], [56, 71.7], [41.5, 92.4], [70.7, 92.2]]) * 40 / 112
  assert np.abs(points - template).max() < 4
  again = face.record(image=None, name='', label=0, expression=CLASSES[record['label']], size=(40, 40),
                      landmarks=record['landmarks'], source='released')
  for name in ('landmark_heatmap', 'action_unit_map'):
    stored = aligned.as_data_source('train', decoders={name: tfds.decode.SkipDecoding()})[0][name]
    assert stored == again[name].getvalue()


def face_points(p):
  return np.stack([p[36:42].mean(0), p[42:48].mean(0), p[30], p[48], p[54]])


@pytest.mark.parametrize('name, expected', [
    ('plane', "faces has no variant 'plane'; did you mean 'plain'"), ('plane-similarity40', "did you mean 'plain'"),
    ('plain-similarity', "no variant 'plain-similarity'")])
def test_unknown_variants(name, expected, tmp_path):
  with pytest.raises(UserError, match=expected):
    make(tmp_path, config=name)


@pytest.mark.parametrize('options, expected', [
    ({'dataset': 'ferpus'}, "did you mean 'ferplus'"), ({'dataset': 'ferplus', 'variant': 'majorty'}, "'majority'"),
    ({'dataset': 'ferplus', 'sources': 'x'}, "no option 'sources'; did you mean 'source'")])
def test_unknown_options(options, expected, tmp_path):
  with pytest.raises(UserError, match=expected):
    preparation.make_builder(data_dir=str(tmp_path), **options)
  assert not list(tmp_path.iterdir())


def test_paths_may_begin_at_the_home_folder(source, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert preparation.make_builder('ferplus', None, '~/data').data_path.parts[:-3] == (tmp_path / 'data').parts
  assert open_tree('~/source/', '').root == str(source)


def test_where_nothing_can_be_written(source, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot write .*file/data/faces/plain/1.0.0: Not a directory'):
    preparation.prepare(make(tmp_path, data_dir=tmp_path / 'file' / 'data'))


@pytest.mark.parametrize('room', [20_000, 400_000])  # For a part of the work; for that, and not for the data.
def test_a_full_disk_leaves_no_data(room, tmp_path):
  # Files that may not grow stand for a disk that is full.
  code = (f'import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room})); '
          'runpy.run_module("fer_jax.prepare", run_name="__main__")')
  result = subprocess.run([sys.executable, '-c', code, '--dataset=synthetic_faces', '--variant=tiny', '--workers=0',
                           f'--data_dir={tmp_path}'], capture_output=True, text=True, check=False)
  assert result.returncode == 2 and 'Traceback' not in result.stderr
  assert f'error: cannot write {tmp_path}/synthetic_faces/tiny/1.0.0: File too large' in result.stderr
  assert {path.name for path in (tmp_path / 'synthetic_faces' / 'tiny').iterdir()} == {'parts'}
  assert not list(tmp_path.rglob('*.array_record*'))


def test_a_missing_runner_is_told(source, tmp_path):
  pytest.importorskip('apache_beam', reason='needs Apache Beam')
  with pytest.raises(UserError, match='--beam_runner=DirctRunner: Beam has no such runner'):
    preparation.prepare(make(tmp_path), 'DirctRunner')


def test_what_beam_lacks_is_told_before_it_runs(source, tmp_path, monkeypatch):
  pytest.importorskip('apache_beam', reason='needs Apache Beam')
  pytest.importorskip('dlib', reason='landmarks need dlib')
  listed = {'train': [Listed('00.png', File(f'{source}/00.png'), 0)]}
  monkeypatch.setattr(Faces, 'faces', lambda self, path: listed)
  with pytest.raises(UserError, match='no landmark model at /none'):
    preparation.prepare(make(tmp_path, landmark_model='/none', check_counts=False), 'DirectRunner')


def test_beam_is_an_extra(source, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'apache_beam.options.pipeline_options', None)
  with pytest.raises(UserError, match=r'pip install "fer_jax\[beam\]"'):
    preparation.prepare(make(tmp_path), 'DirectRunner')


@pytest.mark.parametrize('strict', [True, False])
def test_beam_leaves_out_what_the_pool_leaves_out(strict, source, tmp_path, monkeypatch):
  pytest.importorskip('apache_beam', reason='needs Apache Beam')
  (source / '17.png').write_bytes(b'')
  here, there = make(tmp_path, strict=False), make(tmp_path, data_dir=tmp_path / 'beam', strict=strict)
  preparation.prepare(here)
  monkeypatch.setattr(pool, 'work_on', None)  # The pool must not run.
  if strict:
    with pytest.raises(UserError, match='17.png: empty file'):
      preparation.prepare(there, 'DirectRunner')
    assert not there.data_path.exists()
    return
  preparation.prepare(there, 'DirectRunner')
  assert json.loads((there.data_path / 'contents.json').read_text()) == here.contents()
  assert (there.data_path / 'skipped.txt').read_text() == (here.data_path / 'skipped.txt').read_text()


def test_beam_and_the_pool_give_the_same_records(tmp_path, monkeypatch):
  pytest.importorskip('apache_beam', reason='needs Apache Beam')
  monkeypatch.setattr(pool, 'PART', 64)
  from fer_jax.data.builders.synthetic_faces import synthetic_faces_dataset_builder as synthetic
  config = synthetic.SyntheticFacesConfig(name='six_hundred', train=500, valid=50, test=50, image_size=16)
  here, there = (synthetic.Builder(data_dir=tmp_path / name, config=config, file_format='array_record')
                 for name in ('pool', 'beam'))
  preparation.prepare(here)
  preparation.prepare(there, 'DirectRunner')
  assert here.contents() == there.contents()
  for split in ('train', 'valid', 'test'):
    skip = dict.fromkeys(('image', 'landmark_heatmap', 'action_unit_map', 'causal_mask'), tfds.decode.SkipDecoding())
    one, other = (b.as_data_source(split, decoders=skip) for b in (here, there))
    assert len(one) == len(other)
    for row in range(0, len(one), 1 if split == 'test' else 50):
      mine, theirs = one[row], other[row]
      assert mine.keys() == theirs.keys()
      for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name])
  assert 'tensorflow' not in sys.modules


def test_a_source_knows_its_digest_and_draws_maps_of_earlier_rules_again(tmp_path):
  one = preparation.make_builder('synthetic_faces', 'tiny', str(tmp_path), workers=0)
  preparation.prepare(one)
  source = splits.open_split('synthetic_faces', 'tiny', 'train', str(tmp_path))
  assert source.digest == one.contents()['digest'] and source.fingerprint != source.digest
  assert source.drawing == action_units.DRAWING and 'drawn again' not in preparation.summary(one)
  path = one.data_path / 'contents.json'
  told = {key: value for key, value in one.contents().items() if key not in ('drawing', 'checksum')}
  path.write_text(json.dumps(told | {'digest': contents.digest(told, told['splits'])}))
  old = splits.open_split('synthetic_faces', 'tiny', 'train', str(tmp_path))
  assert old.drawing == 1 and 'action-unit maps otherwise' in preparation.summary(one)
  for row in range(8):  # The rules are today's, so that nothing changes by it.
    np.testing.assert_array_equal(old.example(row)['action_unit_map'], source.example(row)['action_unit_map'])
