"""Draws faces, with the maps laid over them or with their neighbours, as small pictures that live inside the page."""

import base64
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from fer_jax import registry
from fer_jax.errors import UserError
from fer_jax.metrics.alignment import resize

FOR, AGAINST, MASK = (244, 96, 24), (44, 108, 236), (24, 168, 120)  # RGB of evidence for and against, and of a mask.

_WIDTH = 152  # Pixels of a picture; twice its size on the page, for sharp screens.


def photo(image: np.ndarray) -> np.ndarray:
  """Scales a face (H, W) or (H, W, 1 or 3) uint8 to the page's width; returns RGB uint8 of the same aspect."""
  image = np.atleast_3d(image)
  image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
  size = (_WIDTH, round(_WIDTH * image.shape[0] / image.shape[1]))
  return cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_CUBIC)


def overlay(image: np.ndarray, values: np.ndarray, positive: tuple[int, int, int] = FOR) -> np.ndarray:
  """Lays a real map (h, w) of any scale over a face, as RGB uint8 of the size of ``photo(image)``.

  Opacity is |value| over the map's largest, colour its sign: ``positive`` (RGB) or ``AGAINST``. The face is grey and
  paler, so that colour means the map alone; a map that is zero or not finite leaves it bare.
  """
  grey = cv2.cvtColor(photo(image), cv2.COLOR_RGB2GRAY).astype(np.float64)[..., None] * 0.72 + 56
  values = resize(values, grey.shape[:2])[..., None]
  peak = np.abs(values).max()
  if not 0 < peak < np.inf:
    values, peak = np.zeros_like(values), 1.0
  opacity = 0.9 * np.abs(values) / peak
  colour = np.where(values > 0, positive, AGAINST)
  return np.clip(grey * (1 - opacity) + colour * opacity, 0, 255).astype(np.uint8)


def data_uri(image: np.ndarray) -> str:
  """Encodes an RGB uint8 picture as the address of an inline JPEG."""
  file = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
  return 'data:image/jpeg;base64,' + base64.b64encode(file.tobytes()).decode()


def restricted(config: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
  """Whether the faces of a run are not to be passed on, from its config.json and run.json; True where nobody knows."""
  if 'shareable' not in record:  # Of an earlier version.
    try:
      return not registry.find('data.builders', config['data']['dataset']).SHAREABLE
    except (UserError, KeyError, TypeError):
      return True
  return not record['shareable']


def canvas(panel: Mapping[str, np.ndarray], i: int) -> np.ndarray:
  """What the maps of face ``i`` are laid over: the face, or the mean face where none were kept."""
  return panel['images'][i] if 'images' in panel else panel['mean_face']


def faces(panel: Mapping[str, np.ndarray], classes: list[str]) -> list[dict[str, Any]]:
  """Makes the rows of the face grid: of each face what ``answer`` says, and cells [{title, group, uri}].

  ``panel`` has images (n, H, W, C) uint8, or mean_face (H, W, C) and labels in their place, and, each where there is
  one, labels and predictions (n,) int, priors and causal_masks (n, h, w) uint8, before/NAME and after/NAME (n, h, w)
  float32 for any names of maps.
  """
  maps = list(dict.fromkeys(key.split('/', 1)[1] for key in panel if key.startswith(('before/', 'after/'))))
  rows = []
  for i in range(len(panel['images' if 'images' in panel else 'labels'])):
    image = canvas(panel, i)
    cells = [('photo', '', photo(image))] if 'images' in panel else []
    if 'priors' in panel:
      cells.append(('landmark prior', '', overlay(image, panel['priors'][i])))
    for which in maps:
      cells += [(f'{when} training', which.replace('_', ' '), overlay(image, panel[f'{when}/{which}'][i]))
                for when in ('before', 'after') if f'{when}/{which}' in panel]
    if 'causal_masks' in panel:
      cells.append(('causal mask', '', overlay(image, panel['causal_masks'][i], MASK)))
    rows.append(answer(panel, i, classes) | {
        'cells': [{'title': title, 'group': group, 'uri': data_uri(drawn)} for title, group, drawn in cells]})
  return rows


def answer(panel: Mapping[str, np.ndarray], i: int, classes: list[str]) -> dict[str, Any]:
  """Label and prediction of face ``i`` in words, '' if unknown, and whether they are the same, None if unknown."""
  label, prediction = (class_name(panel[key][i], classes) if key in panel else '' for key in ('labels', 'predictions'))
  return {'label': label, 'prediction': prediction, 'correct': label == prediction if label and prediction else None}


def neighbours(found: Mapping[str, np.ndarray], classes: list[str]) -> list[dict[str, Any]]:
  """Makes the rows of the retrieval picture.

  ``found`` has, the query first and then its neighbours from near to far, labels (Q, 1 + k) int, -1 if unknown;
  distances (Q, 1 + k) real; and, where they were kept, images (Q, 1 + k, H, W, C) uint8. Returns per query: query
  {label, uri} and cells [{label ('' if unknown), same (None if unknown), distance, uri ('' without an image)}].
  """
  rows, without = [], [[None] * len(labels) for labels in found['labels']]
  for images, labels, distances in zip(found.get('images', without), found['labels'], found['distances'], strict=True):
    cells = [{
        'label': class_name(label, classes),
        'same': bool(label == labels[0]) if label >= 0 and labels[0] >= 0 else None,
        'distance': f'{distance:.3g}',
        'uri': '' if image is None else data_uri(photo(image)),
    } for image, label, distance in zip(images, labels, distances, strict=True)]
    rows.append({'query': cells[0], 'cells': cells[1:]})
  return rows


def class_name(index: int, classes: list[str]) -> str:
  """The name of a class; its number if it has none, '' if it is negative, for unknown."""
  return '' if index < 0 else classes[index] if index < len(classes) else f'class {index}'
