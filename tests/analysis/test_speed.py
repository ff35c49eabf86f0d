"""What the bench measures is what it says: the work is done, so often, on these faces, in turns."""

import numpy as np
import pytest

from fer_jax.analysis import speed
from fer_jax.data.preparing import preparation
from fer_jax.landmarks import detect
from tests import faces

pytest.importorskip('dlib', reason='landmarks need dlib')


def test_faces_per_second(monkeypatch):
  read, looked = [], []
  source = faces.source(7)
  example, find = source.example, detect.Detector.__call__
  monkeypatch.setattr(source, 'example', lambda row: read.append(row) or example(row))
  monkeypatch.setattr(detect.Detector, '__call__',
                      lambda self, image, look=True: looked.append(look) or find(self, image, look))
  found = speed.faces_per_second(source, rounds=3, count=4)
  assert read == [i % 7 for i in range(12)] and looked == ([True] * 4 + [False] * 4) * 3
  assert len(found) == 3 and all(values.shape == (3,) and (values > 0).all() for values in found.values())


def test_preparation_seconds(monkeypatch):
  made = []
  prepare = preparation.prepare
  monkeypatch.setattr(preparation, 'prepare', lambda builder: made.append((builder._workers, prepare(builder),
                                                                           builder.contents()['splits'])))
  seconds = speed.preparation_seconds([0, 1], faces=8, rounds=2)
  assert seconds.shape == (2, 2) and (seconds > 0).all()
  assert [workers for workers, _, _ in made] == [0, 1, 1, 0] and all(new for _, new, _ in made)
  assert all(splits['train']['faces'] == 8 for _, _, splits in made)
  assert np.isfinite(seconds).all()


def test_contestants_take_turns():
  order = []
  contestants = [speed.Contestant(name, 1, 1.0, 1.0, lambda name=name: order.append(name)) for name in 'ab']
  seconds = speed.compare(contestants, rounds=2, steps=2)
  assert ''.join(order) == 'ab' + 'aabb' + 'bbaa' and seconds.shape == (2, 2) and (seconds > 0).all()
