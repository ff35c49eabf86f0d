"""The prepare command: its messages, and what an interruption leaves (no data)."""

import importlib.util
import io
import os
import signal
import time

import numpy as np
import PIL.Image
import pytest

from fer_jax import registry
from fer_jax.data import face
from fer_jax.data.preparing import preparation
from tests.processes import call, start

needs_dlib = pytest.mark.skipif(not importlib.util.find_spec('dlib'), reason='landmarks need dlib')


def make_source(path, faces=3, hurt=False):
  """A FERPlus of noise with ``faces`` images in each split."""
  for split, folder in enumerate(('FER2013Train', 'FER2013Valid', 'FER2013Test')):
    (path / folder).mkdir(parents=True)
    rows = []
    for i in range(faces):
      name = f'fer{split:03d}{i:04d}.png'
      noise = np.random.default_rng(i).integers(0, 256, (48, 48), dtype=np.uint8)
      file = io.BytesIO()
      PIL.Image.fromarray(noise).save(file, 'PNG')
      (path / folder / name).write_bytes(b'' if hurt and i == 0 else file.getvalue())
      rows.append(f'{name},"(0, 0, 48, 48)",' + ','.join('10' if k == i % 8 else '0' for k in range(10)))
    (path / folder / 'label.csv').write_text('\n'.join(rows) + '\n')
  return str(path)


@needs_dlib
def test_killed_preparation_leaves_no_data_and_the_next_one_is_clean(tmp_path):
  make_source(tmp_path / 'source', faces=300)
  folder = tmp_path / 'data' / 'ferplus' / 'majority'
  arguments = ('prepare', '--dataset=ferplus', '--workers=0', '--nocheck_counts')
  process = start(*arguments, f'--source={tmp_path / "source"}', data_dir=tmp_path / 'data')
  while process.poll() is None and not list(folder.glob('incomplete.*')):
    time.sleep(0.05)
  time.sleep(0.5)
  process.kill()
  process.communicate()
  assert process.returncode == -signal.SIGKILL, 'it ended before it could be killed'
  assert sorted(p.name.partition('.')[0] for p in folder.iterdir()) == ['incomplete', 'parts']
  make_source(tmp_path / 'small')
  status, out, err = call(*arguments, f'--source={tmp_path / "small"}', data_dir=tmp_path / 'data')
  assert status == 0 and 'faces                          3         3         3' in out, err
  assert os.listdir(folder) == ['1.0.0']


def test_command_line(tmp_path):
  data = f'--data_dir={tmp_path / "data"}'
  run = lambda *arguments: call('prepare', *arguments, data, data_dir=tmp_path)
  status, _, err = run('--dataset=ferplus', f'--source={tmp_path / "none.zip"}')
  assert status == 2 and 'Traceback' not in err
  assert f'error: --source: {tmp_path / "none.zip"} does not exist' in err
  assert '--[no]strict' in run('--help')[1]
  status, out, _ = run('--dataset=synthetic_faces', '--variant=tiny')
  assert status == 0 and 'faces                         64        32        32' in out
  status, again, _ = run('--dataset=synthetic_faces', '--variant=tiny')
  assert status == 0 and again == f'Already prepared; remove the folder to prepare it again.\n{out}'
  tiny = ('--dataset=synthetic_faces', '--variant=tiny', '--verify')
  status, out, _ = run(*tiny)
  assert status == 0 and out.startswith('Every record is as it was written. Digest ')
  (tmp_path / 'data/synthetic_faces/tiny/1.0.0/dataset_info.json').unlink()
  for arguments in (tiny, tiny[:2]):
    status, out, err = run(*arguments)
    assert status == 2 and not out and 'dataset_info.json is missing' in err and 'Traceback' not in err
  status, _, err = run('--dataset=synthetic_faces', '--align=similarity')
  assert status == 2 and 'the faces of synthetic_faces are not to be aligned' in err


@pytest.mark.parametrize('name', registry.names('data.builders'))
def test_every_data_set_describes_itself(name):
  text = preparation.describe(name)
  assert 'Variants: ' in text and len(text.splitlines()) > 8
  cls = registry.find('data.builders', name)
  for i, expression in enumerate(cls.CLASSES):
    assert f'{i} {expression}' in text
  if cls.HOW_TO:
    assert '--source=' in text and cls.HOW_TO in text
  assert set(cls.CLASSES) <= set(face.EXPRESSIONS)
  for splits in cls.COUNTS.values():
    assert all(len(counts) in (1, len(cls.CLASSES), len(cls.CLASSES) - 1) for counts in splits.values())


def test_the_largest_class_is_what_the_papers_say():
  share = lambda name, variant: (lambda counts: max(counts) / sum(counts))(
      registry.find('data.builders', name).COUNTS[variant]['test'])
  assert round(100 * share('rafdb', 'aligned'), 2) == 38.62 and round(100 * share('ferplus', 'majority'), 2) == 34.52


def test_describing_needs_no_source(tmp_path):
  status, out, _ = call('prepare', '--describe=ferplus', data_dir=tmp_path)
  assert status == 0 and 'MIT' in out and 'FER2013Train/label.csv' in out and '0 neutral, 1 happiness' in out
  assert 'train of majority: 25,045 faces (8733 7284 3136 3022 2098 116 536 120)' in out
