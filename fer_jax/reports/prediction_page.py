"""The page of ``predict``: faces as the network saw them, what it says of each and where it looked."""

import math
import os
from collections.abc import Mapping
from typing import Any

from fer_jax.reports import calibration, pictures, runs, template
from fer_jax.reports.prediction import NO_FACE, Tally, rows
from fer_jax.reports.words import brief, leaks
from fer_jax.runtime import cluster, storage

FACES = 48  # Shown at most.
_FILES = 100  # Listed at most, of those without a face or unreadable.


class Page:
  """One HTML file that loads nothing from elsewhere; made of pictures as they come, it keeps a bounded part of them."""

  def __init__(self, path: str | os.PathLike[str], about: Mapping[str, Any], faces: int = FACES):
    """An empty page.

    Args:
      path: of the file.
      about: whose answers they are: workdir, name, step, commit, seed, classes; calibration, the content of its
        calibration.json or None; map, the name of the attribution map, '' without; images and detector, as given.
      faces: shown at most; where there are more, so many at even distances.
    """
    self._path, self._about, self._most = path, about, faces
    self._tally, self._shown, self._stride = Tally(), [], 1
    self._without: dict[tuple[str, str], dict[str, Any]] = {}  # By file and reason.
    self._left_out = 0

  def add(self, answered: Any) -> None:
    """Takes a picture."""
    found = rows(answered)
    for number, (located, face, row) in enumerate(zip(answered.located, answered.faces, found, strict=False),
                                                  self._tally.faces):
      if number % self._stride == 0:
        self._shown.append(_drawn(located.image, face.map, row))
      if len(self._shown) > self._most:
        self._shown, self._stride = self._shown[::2], 2 * self._stride
    self._tally.add(answered)
    if not answered.faces:
      self._lacking(found[0])

  def finish(self) -> None:
    """Writes the page; raises a UserError where it cannot be written."""
    path = template.write(storage.as_path(self._path), 'prediction.html', self._contents)
    cluster.say(f'Page: {path}')

  def _lacking(self, row: Mapping[str, Any]) -> None:
    """Lists a picture without a face; frames of a video that lack one for the same reason are one line."""
    key = row['file'], row['reason']
    if key not in self._without and len(self._without) == _FILES:
      self._left_out += 1
      return
    one = self._without.setdefault(key, {'file': row['file'], 'reason': row['reason'], 'count': 0,
                                         'frame': row['frame'], 'seconds': row['seconds']})
    one['count'] += 1

  def _contents(self) -> dict[str, Any]:
    about, calibrated = self._about, self._about['calibration']
    tested, _ = runs.read([str(about['workdir'])])
    result = next((run.result for run in tested if not run.result.get('overrides')), None)
    return {
        **about, 'words': f"{self._tally} in {about['images']}.", 'tally': self._tally, 'faces': self._shown,
        'without': list(self._without.values()), 'left_out': self._left_out, 'no_face': NO_FACE,
        'result': result, 'leaks': leaks(result or {}), 'step': brief(about['step']), 'untrained': not about['step'],
        'calibrated': calibration.words(calibrated) if calibrated else '',
        'most_entropy': math.log(len(about['classes']))}


def _drawn(image: Any, values: Any, row: Mapping[str, Any]) -> dict[str, Any]:
  """A face for the page: its row, and it and its map as addresses."""
  drawn = [pictures.photo(image), *([] if values is None else [pictures.overlay(image, values)])]
  return {**row, 'drawn': list(map(pictures.data_uri, drawn))}
