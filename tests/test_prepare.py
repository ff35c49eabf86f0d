"""The prepare command: its summary, its messages, and what an interruption leaves (nothing)."""

import importlib.util
import io
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

from fer_jax import prepare
from fer_jax.data.builders import ferplus as ferplus_package
from fer_jax.errors import UserError

ROOT = pathlib.Path(prepare.__file__).resolve().parents[1]

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


def run_command(*arguments, **options):
  command = [sys.executable, '-m', 'fer_jax.prepare', *arguments]
  return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def prepare_tiny(tmp_path, **options):
  options = {'source': str(tmp_path / 'source'), 'workers': 0, 'check_counts': False} | options
  return prepare.prepare('ferplus', data_dir=str(tmp_path / 'data'), **options)


@needs_dlib
def test_summary_of_a_new_and_of_a_prepared_data_set(tmp_path):
  make_source(tmp_path / 'source', hurt=True)
  summary = prepare_tiny(tmp_path)
  lines = {line[:22].strip(): line[22:].split() for line in summary.splitlines()}
  assert lines[''] == ['train', 'valid', 'test'] or lines[''] == ['test', 'train', 'valid']
  assert lines['faces'] == ['2', '2', '2'] and lines['happiness'] == ['1', '1', '1']
  assert 'neutral' not in lines  # Its only images were hurt; empty rows are not shown.
  assert lines['landmarks: image_box'] == ['2', '2', '2']
  folder = tmp_path / 'data' / 'ferplus' / 'majority' / '1.0.0'
  assert f'In {folder}' in summary
  assert 'Left out 3 image(s) or line(s)' in summary and 'FER2013Valid/fer0010000.png: empty file' in summary
  assert len((folder / 'skipped.txt').read_text().splitlines()) == 3
  again = prepare_tiny(tmp_path)
  assert again.startswith('Already prepared') and summary in again


def test_messages(tmp_path):
  for call, expected in (
      (lambda: prepare.prepare('ferpus'), "did you mean 'ferplus'"),
      (lambda: prepare_tiny(tmp_path, variant='majorty'), "did you mean 'majority'"),
      (lambda: prepare_tiny(tmp_path, sources='x'), "no option 'sources'; did you mean 'source'"),
      (lambda: prepare_tiny(tmp_path, source=None), 'To obtain it'),
      (lambda: prepare_tiny(tmp_path), 'source does not exist'),
  ):
    with pytest.raises(UserError, match=expected):
      call()
  assert not list((tmp_path / 'data').glob('ferplus/majority/*'))


def test_only_one_process_prepares(tmp_path):
  builder = ferplus_package.ferplus(data_dir=tmp_path, file_format='array_record')
  stale = builder.data_path.parent / 'incomplete.ABCDEF_1.0.0'
  stale.mkdir(parents=True)
  (stale / 'part').write_text('')
  with prepare._alone(builder):
    assert not stale.exists()
    stale.mkdir()  # Now that of the running preparation.
    with pytest.raises(UserError, match='another process is preparing'):
      prepare._alone(builder).__enter__()
    assert stale.exists()
  with prepare._alone(builder):
    assert not stale.exists()


@needs_dlib
def test_killed_preparation_leaves_no_data_and_the_next_one_is_clean(tmp_path):
  make_source(tmp_path / 'source', faces=300)
  folder = tmp_path / 'data' / 'ferplus' / 'majority'
  process = run_command('--dataset=ferplus', f'--source={tmp_path / "source"}', f'--data_dir={tmp_path / "data"}',
                        '--workers=0', '--nocheck_counts')
  while process.poll() is None and not list(folder.glob('incomplete.*')):
    time.sleep(0.05)
  time.sleep(0.5)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL, 'it ended before it could be killed'
  assert [p.name.partition('.')[0] for p in folder.iterdir()] == ['incomplete']
  make_source(tmp_path / 'small')
  assert 'faces' in prepare_tiny(tmp_path, source=str(tmp_path / 'small'))
  assert os.listdir(folder) == ['1.0.0']


def test_command_line(tmp_path):
  wrong = run_command('--dataset=ferplus', f'--source={tmp_path / "none.zip"}', f'--data_dir={tmp_path / "data"}')
  helped = run_command('--help')
  out, err = wrong.communicate(timeout=120)
  assert wrong.returncode == 2 and 'Traceback' not in err
  assert f'error: --source: {tmp_path / "none.zip"} does not exist' in err
  assert '--[no]strict' in helped.communicate(timeout=120)[0]
