"""A stream of pictures becomes a stream of answers: what the command ``predict`` does with ``prediction.Predictor``.

Pictures are read and faces found by threads that run ahead, while the network answers the faces of several pictures as
one batch. What waits is bounded, so that a video may be of any length.
"""

import collections
import contextlib
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax

from fer_jax.analysis.prediction import Face, Located, Predictor, default_map
from fer_jax.data.reading.ahead import in_order
from fer_jax.data.reading.pictures import Picture, Pictures
from fer_jax.errors import UserError
from fer_jax.reports.prediction import Console, Output, RowsFile, Tally, check_paths
from fer_jax.reports.prediction_page import Page
from fer_jax.runtime import cluster
from fer_jax.runtime.progress import progress
from fer_jax.training import calibration, evaluation, setup
from fer_jax.training.workdir import read_finished

SECONDS = 5.0  # Faces wait no longer than that for others to fill their batch: after Ctrl-C less is lost.

_WORKERS, _AHEAD = 2, 8  # Threads that read and look for faces, and pictures that they are ahead of the network.


class Answered(NamedTuple):
  """A picture, the faces that were found in it, and what the network says of each."""

  picture: Picture  # Without its pixels.
  located: Sequence[Located]
  faces: Sequence[Face]


def answers(predictor: Predictor, pictures: Iterable[Picture], maps: bool = False, crops: bool = False
            ) -> Iterator[Answered]:
  """Yields what there is to say of each picture, in their order.

  Args:
    maps: with an attribution map of each face.
    crops: each picture is one face, which is taken from the content of its file: so it is exactly what a data set has.
  """
  waiting: collections.deque = collections.deque()  # Pictures with their faces, of which some are not answered yet.
  asked: list[Located] = []  # Faces that are not answered, the last of ``waiting``.
  known: collections.deque = collections.deque()  # What was answered, for the first of ``waiting``.

  def look(picture: Picture) -> tuple[Picture, list[Located]]:
    picture = picture.opened()
    found = []
    if picture.pixels is not None:
      try:
        found = predictor.located(picture.encoded if crops and picture.encoded else picture.pixels)
      except UserError as error:
        picture = picture._replace(reason=str(error))
    return picture._replace(pixels=None, encoded=None), found

  def complete() -> Iterator[Answered]:
    while waiting and len(waiting[0][1]) <= len(known):
      picture, located = waiting.popleft()
      yield Answered(picture, located, [known.popleft() for _ in located])

  since = time.monotonic()
  for picture, located in in_order(look, pictures, _WORKERS, _AHEAD):
    waiting.append((picture, located))
    asked += located
    while len(asked) >= predictor.batch_size or asked and time.monotonic() - since > SECONDS:
      batch, asked = asked[:predictor.batch_size], asked[predictor.batch_size:]
      known.extend(predictor.answered(batch, map=maps))
      since = time.monotonic()
    yield from complete()
  if asked:
    known.extend(predictor.answered(asked, map=maps))
  yield from complete()


def predict(workdir: str, images: str, *, detector: str = 'dlib', every: int = 1, out: str | None = None,
            page: str | None = None, map: str = '') -> None:
  """Writes what a run's network says of pictures as they come, or prints the first of it, and says what was counted.

  After Ctrl-C what is done is kept: the files are finished as otherwise, then the KeyboardInterrupt goes on.

  Args:
    workdir, detector, map: as ``prediction.load`` takes them.
    images, every: as ``Pictures`` takes them.
    out: a file for the rows, see ``reports.prediction.RowsFile``; None: the first are printed.
    page: a file for the page; it alone has maps.

  Raises:
    UserError: a bad run, picture, path or detector, or a file cannot be written.
  """
  pictures = Pictures(images, every)
  check_paths(out, page, pictures.paths)
  if map and not page:
    raise UserError(f'--map={map} is shown on the page: give --page=FILE.html.')
  for note in pictures.notes:
    cluster.say(f'Note: {note}.')
  read_finished(workdir)
  trained = setup.load(workdir, cluster.make_mesh(jax.local_devices()[:1]))
  map = map or (default_map(trained) if page else '')
  predictor = Predictor(trained, detector=detector, map=map)
  outputs: list[Output] = [RowsFile(out, predictor.classes) if out else Console()]
  if page:
    found = calibration.read(trained.workdir, trained.step)
    outputs.append(Page(page, evaluation.stamp(trained) | {
        'workdir': workdir, 'classes': predictor.classes, 'calibration': found, 'images': images, 'detector': detector,
        'map': map}))
  tally, interrupted = Tally(pictures.unit), False
  try:
    with progress(total=pictures.total, desc='predict', unit=pictures.unit) as bar:
      for answered in answers(predictor, pictures, bool(map), crops=detector in ('crop', 'none')):
        with _undisturbed():
          for output in (*outputs, tally):
            output.add(answered)
          bar.update()
  except KeyboardInterrupt:
    interrupted = True
  with _undisturbed():
    for output in (*outputs, tally):
      output.finish()
  if interrupted:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
  """Lets Ctrl-C wait for the end of this, so that all outputs have the same pictures, each of them whole."""
  before = signal.getsignal(signal.SIGINT)
  if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
    yield
    return
  told: list[int] = []
  signal.signal(signal.SIGINT, lambda number, _: told.append(number))
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)
  if told:
    raise KeyboardInterrupt
