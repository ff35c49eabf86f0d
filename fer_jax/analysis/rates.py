"""How fast faces are prepared and read on this machine; measured in turns, because machines drift."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.face import EXPRESSIONS, png
from fer_jax.data.preparing import preparation
from fer_jax.data.reading.pixels import decode
from fer_jax.landmarks.detect import detector


def faces_per_second(source: Any, rounds: int, count: int) -> dict[str, np.ndarray]:
  """Measures on one core what a face costs.

  Args:
    source: a ``splits.Split`` that caches nothing.
    rounds: rounds; in each, every kind of work is done on ``count`` faces.
    count: faces in a round; the next ones in every round.

  Returns:
    Faces a second by kind of work, (rounds,) each.
  """
  look = detector()
  images: list[np.ndarray] = []
  work: Mapping[str, Callable[[int], Any]] = {
      'reading a record and decoding image and maps': source.example,
      'landmarks, the face looked for': lambda i: look(images[i % count]),
      'landmarks, the whole image as the face': lambda i: look(images[i % count], look=False),
  }
  threads = cv2.getNumThreads()
  cv2.setNumThreads(1)
  rates: dict[str, list[float]] = {name: [] for name in work}
  for r in range(rounds):
    rows = [i % len(source) for i in range(r * count, (r + 1) * count)]
    images[:] = [decode(source.records[row]) for row in rows]
    for name, do in work.items():
      began = time.perf_counter()
      for row in rows:
        do(row)
      rates[name].append(count / (time.perf_counter() - began))
  cv2.setNumThreads(threads)
  return {name: np.array(values) for name, values in rates.items()}


def preparation_seconds(workers: Sequence[int], faces: int, rounds: int) -> np.ndarray:
  """Measures how long a folder of drawn faces takes to be prepared, landmarks looked for.

  Args:
    workers: numbers of processes to compare.
    faces: how many faces of 64 px there are.
    rounds: rounds; in each, every number of processes has its turn.

  Returns:
    Seconds (rounds, len(workers)).
  """
  seconds = np.zeros((rounds, len(workers)))
  with tempfile.TemporaryDirectory() as folder:
    source = Path(folder) / 'source'
    for i in range(faces):
      name = EXPRESSIONS[i % 7]
      file = source / 'train' / name / f'{i:06d}.png'
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_bytes(png(draw_face(np.random.default_rng(i), name, 64).image).getvalue())
    for r in range(rounds):
      for i in np.roll(np.arange(len(workers)), r):
        with tempfile.TemporaryDirectory() as made:
          builder = preparation.make_builder('faces_folder', None, made, source=str(source), workers=workers[i],
                                             classes=list(EXPRESSIONS[:7]))
          began = time.perf_counter()
          preparation.prepare(builder)
          seconds[r, i] = time.perf_counter() - began
  return seconds
