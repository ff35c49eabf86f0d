"""``predict``: rows for faces, for pictures without one and for what cannot be read; batches; Ctrl-C; long videos."""

import csv
import json
import os
import resource
import signal
import time

import cv2
import numpy as np
import PIL.Image
import pytest

from fer_jax.analysis import face_rows
from fer_jax.analysis.prediction import Face, Located
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.reading.pictures import Picture, Pictures
from fer_jax.errors import UserError
from fer_jax.runtime import storage
from tests import faces, processes
from tests.data.reading.test_pictures import photo, video
from tests.training.test_evaluation import make_calibrated


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run of a 16-pixel network that was calibrated."""
  return make_calibrated(storage.as_path(tmp_path_factory.mktemp('run')))


class FakePredictor:
  """Finds as many faces as a picture's first value says; remembers the sizes of its batches."""

  batch_size = 4

  def __init__(self):
    self.asked, self.pixels = [], []

  def located(self, image):
    image = image if isinstance(image, np.ndarray) else np.uint8([[len(image)]])
    return [Located(image[:1, :1, None], (0, 0, 1, 1), None, None, np.zeros((68, 2)))] * int(image.flat[0])

  def answered(self, located, map=False):
    self.asked.append(len(located))
    self.pixels += [one.image.flat[0] for one in located]
    return [Face((0, 0, 1, 1), None, None, {'a': 1.0}, np.zeros(1), 'a', 1.0, 0.0, None, np.zeros(1), None)
            for _ in located]


def shown(counts):
  return [Picture(f'{i}', pixels=np.full((1, 1), count, np.uint8)) for i, count in enumerate(counts)]


def test_faces_of_several_pictures_share_batches_and_pictures_keep_their_order():
  predictor, counts = FakePredictor(), [1, 0, 2, 9, 0, 0, 1, 3, 0]
  pictures = [*shown(counts), Picture('bad', reason='why')]
  found = list(face_rows.answers(predictor, pictures))
  assert [one.picture.file for one in found] == [*map(str, range(9)), 'bad']
  assert [len(one.faces) for one in found] == [*counts, 0]
  assert [len(one.located) for one in found] == [*counts, 0] and found[-1].picture.reason == 'why'
  assert all(one.picture.pixels is None for one in found)
  assert predictor.asked == [4, 4, 4, 4]
  assert predictor.pixels == [count for count in counts for _ in range(count)]


def test_faces_do_not_wait_long_for_others(monkeypatch):
  monkeypatch.setattr(face_rows, 'SECONDS', 0.0)
  predictor = FakePredictor()
  assert len(list(face_rows.answers(predictor, shown([1, 1, 1])))) == 3
  assert predictor.asked == [1, 1, 1]


def test_what_waits_is_bounded():
  drawn = []
  pictures = (drawn.append(i) or picture for i, picture in enumerate(shown([1] * 100)))
  found = face_rows.answers(FakePredictor(), pictures)
  for i in range(50):
    next(found)
    assert len(drawn) <= i + 4 + face_rows._AHEAD + 1
  found.close()


def test_what_the_predictor_refuses_is_a_row():
  class Refusing(FakePredictor):
    def located(self, image):
      raise UserError('too odd')
  only, = face_rows.answers(Refusing(), shown([1]))
  assert only.picture.reason == 'too odd' and only.faces == []


def csv_rows(path):
  with open(path, newline='') as file:
    return list(csv.DictReader(file))


def call(run, images, *flags, **options):
  return processes.call('predict', f'--workdir={run}', f'--images={images}', *flags, data_dir=run, **options)


def test_faces_on_photographs_and_files_that_are_none(run, tmp_path, capsys):
  pytest.importorskip('dlib', reason='finding faces needs dlib')
  (tmp_path / 'in').mkdir()
  three, corners = np.full((240, 480, 3), 127, np.uint8), [(30, 90), (180, 20), (330, 120)]
  for i, ((x, y), name) in enumerate(zip(corners, ('neutral', 'happiness', 'anger'), strict=True)):
    three[y:y + 96, x:x + 96] = draw_face(np.random.default_rng(i if i < 2 else 3), name, 96).image
  save = lambda pixels, name, **options: PIL.Image.fromarray(pixels).save(tmp_path / 'in' / name, **options)
  exif = PIL.Image.Exif()
  exif[274] = 6
  save(three, 'a_three.png')
  save(three[..., 0], 'b_grey.png')
  save(three[..., 0].astype(np.uint16) * 257, 'c_deep.png')
  save(np.rot90(three), 'd_turned.png', exif=exif)  # Lies on its side, and says so.
  save(np.full((90, 120, 3), 200, np.uint8), 'e_none.png')
  (tmp_path / 'in/f_zero.jpg').write_bytes(b'')
  (tmp_path / 'in/g_text.jpg').write_text('no photograph')
  whole = photo(tmp_path / 'in/h_cut.jpg', size=(64, 64)).read_bytes()
  (tmp_path / 'in/h_cut.jpg').write_bytes(whole[:len(whole) // 2])
  (tmp_path / 'in/i_link.png').symlink_to('nowhere.png')
  face_rows.predict(str(run), str(tmp_path / 'in'), out=str(tmp_path / 'rows.csv'), page=str(tmp_path / 'p.html'))
  rows = csv_rows(tmp_path / 'rows.csv')
  names = [os.path.basename(row['file']) for row in rows]
  found = ['a_three.png', 'b_grey.png', 'c_deep.png', 'd_turned.png']
  assert names == [*(name for name in found for _ in range(3)), 'e_none.png', 'f_zero.jpg', 'g_text.jpg', 'h_cut.jpg',
                   'i_link.png']
  assert list(rows[0])[8:8 + len(faces.CLASSES)] == list(faces.CLASSES)
  for row in rows[:12]:
    probabilities = np.array([float(row[name]) for name in faces.CLASSES])
    np.testing.assert_allclose(probabilities.sum(), 1, atol=1e-5)
    np.testing.assert_allclose(float(row['entropy']), -(probabilities * np.log(probabilities)).sum(), rtol=1e-4)
    assert row['class'] == faces.CLASSES[probabilities.argmax()] and float(row['score']) > 0.2
    assert row['abstain'] == str(bool(probabilities.max() < 0.3)).lower() and not row['reason'] and not row['frame']
  for four in (rows[:3], rows[3:6], rows[6:9], rows[9:12]):  # In the middle of where they were drawn.
    middle = lambda row, low, high: (float(row[low]) + float(row[high])) / 2
    middles = sorted((middle(row, 'left', 'right'), middle(row, 'top', 'bottom')) for row in four)
    np.testing.assert_allclose(middles, [(x + 48, y + 48) for x, y in corners], atol=20)
  assert [row['reason'] for row in rows[12:15]] == ['no face', 'empty file', 'not an image that can be read here']
  assert 'truncated' in rows[15]['reason'] and 'No such file' in rows[16]['reason']
  assert all(not row[name] for row in rows[12:] for name in (*faces.CLASSES, 'left', 'score', 'class', 'abstain'))
  printed = capsys.readouterr().out
  assert '9 pictures: 12 faces' in printed and ', 1 without a face, 4 unreadable; ' in printed
  page = (tmp_path / 'p.html').read_text()
  assert page.count('class="person"') == 12 and page.count('data:image/jpeg') == 24 and 'h_cut.jpg' in page


def test_the_command_prints_a_table_or_writes_lines(run, tmp_path):
  photo(tmp_path / 'a.png', size=(16, 16))
  status, out, err = call(run, tmp_path / 'a.png', '--detector=none')
  assert status == 0 and 'likeliest classes' in out and '1 picture: 1 face' in out, err
  (tmp_path / 'rows.jsonl').write_text('of before')
  film = video(tmp_path / 'b.avi', frames=9)
  status, out, err = call(run, film, '--detector=none', '--every=4', f'--out={tmp_path}/rows.jsonl')
  assert status == 0 and '3 frames: 3 faces' in out, err
  rows = [json.loads(line) for line in (tmp_path / 'rows.jsonl').read_text().splitlines()]
  assert [(row['frame'], row['seconds']) for row in rows] == [(0, 0.0), (4, 0.16), (8, 0.32)]
  assert all(row['box'] == [0, 0, 64, 48] and row['score'] is None and row['reason'] is None for row in rows)
  assert list(rows[0]['probabilities']) == list(faces.CLASSES) and not (tmp_path / 'rows.jsonl.part').exists()


@pytest.mark.parametrize('options, words', [
    ({'images': 'none.jpg'}, 'there is no such file or folder'),
    ({'out': 'rows.txt'}, "--out=rows.txt: the ending says the form; give a name that ends in .csv or .jsonl."),
    ({'page': 'page.pdf'}, "--page=page.pdf: the ending says the form; give a name that ends in .html."),
    ({'images': 'b.csv', 'out': 'b.csv'}, 'is one of the pictures, and would be replaced'),
    ({'map': 'cam'}, '--map=cam is shown on the page: give --page=FILE.html.'),
    ({'every': 3}, '--every=3 counts the frames of a video'),
    ({'detector': 'dlip'}, "there is no detector 'dlip'; did you mean 'dlib'?"),
])
def test_what_is_amiss_shows_before_anything_is_computed(run, tmp_path, monkeypatch, options, words):
  monkeypatch.chdir(tmp_path)
  photo(tmp_path / 'a.png')
  (tmp_path / 'b.csv').write_text('kept')
  with pytest.raises(UserError) as error:
    face_rows.predict(str(run), **{'images': 'a.png', 'detector': 'none', **options})
  assert words in str(error.value)
  assert sorted(os.listdir(tmp_path)) == ['a.png', 'b.csv'] and (tmp_path / 'b.csv').read_text() == 'kept'


def test_ctrl_c_keeps_what_is_done(run, tmp_path):
  film = video(tmp_path / 'a.avi', frames=60_000, size=(16, 16))
  out, part = tmp_path / 'rows.csv', tmp_path / 'rows.csv.part'
  process = processes.start('predict', f'--workdir={run}', f'--images={film}', '--detector=none', f'--out={out}',
                            data_dir=tmp_path)
  until = time.monotonic() + 120
  while not (part.exists() and part.stat().st_size > 3000) and time.monotonic() < until and process.poll() is None:
    time.sleep(0.02)
  process.send_signal(signal.SIGINT)
  printed, err = process.communicate(timeout=120)
  assert process.returncode == 130, (printed, err)
  rows = csv_rows(out)
  assert 10 < len(rows) < 60_000 and not part.exists()
  assert [int(row['frame']) for row in rows] == list(range(len(rows))) and all(row['entropy'] for row in rows)
  assert f'{len(rows):,} frames: {len(rows):,} faces' in printed


def test_memory_does_not_grow_with_a_video(run, tmp_path):
  film, out = video(tmp_path / 'a.avi', frames=3000), tmp_path / 'rows.csv'
  process = processes.Process(_peaks, str(run), str(film), str(out), data_dir=tmp_path)
  printed, err = process.communicate(timeout=200)
  assert process.returncode == 0, err
  first, second = map(int, printed.split()[-2:])
  assert len(csv_rows(out)) == 3000
  assert second - first < 8_000, f'{(second - first) / 1000:.1f} MB more'  # A frame is 9 kB: 1,500 would be 14 MB.


def _peaks(run, film, out):
  """Predicts; prints the process's peak memory in kB after the first half of the frames and in the end."""
  peaks, frames = [], Pictures.__iter__

  def counted(self):
    for i, picture in enumerate(frames(self)):
      if i == 1500:
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
      yield picture

  Pictures.__iter__ = counted
  cv2.setNumThreads(1)
  face_rows.predict(run, film, detector='none', out=out)
  print(*peaks, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
