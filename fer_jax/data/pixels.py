"""The pixels of a record: decoding, and bringing images to a square, a side and a number of channels."""

import hashlib
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from fer_jax.errors import UserError


def name_of(record: Mapping[str, Any]) -> str:
  """The data set's own file name of a record."""
  name = record['name']
  return name.decode() if isinstance(name, bytes) else name


def decode(record: Mapping[str, Any], field: str = 'image') -> np.ndarray:
  """Decodes an image to uint8 (h, w) or RGB (h, w, 3), a map to (h, w); alpha is dropped.

  Raises:
    UserError: the bytes are no image.
  """
  # Stored images are upright (``image_file``). Tags of those prepared before that are ignored: their landmarks are in
  # pixels of the file as it is.
  flags = cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_ANYCOLOR if field == 'image' else cv2.IMREAD_GRAYSCALE)
  image = cv2.imdecode(np.frombuffer(record[field], np.uint8), flags)
  if image is None:
    raise UserError(f"'{name_of(record)}': its {field} cannot be decoded; replace the file, or prepare the data set "
                    'again.')
  return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def digest(image: np.ndarray) -> np.uint64:
  """A number that two images share where they are equal pixel for pixel; grey ones may be stored as RGB.

  Args:
    image: as ``decode`` returns it.
  """
  if image.ndim == 3 and (image == image[..., :1]).all():
    image = image[..., 0]
  hashed = hashlib.blake2b(f'{image.shape}'.encode() + image.tobytes(), digest_size=8)
  return np.frombuffer(hashed.digest(), '<u8')[0]


def to_square(image: np.ndarray, maps: Mapping[str, np.ndarray], landmarks: np.ndarray
              ) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
  """Pads an image (h, w, ...) to a square by continuing its border; maps (0 there) and fractions follow."""
  height, width = image.shape[:2]
  side = max(height, width)
  top, left = (side - height) // 2, (side - width) // 2
  image = cv2.copyMakeBorder(image, top, side - height - top, left, side - width - left, cv2.BORDER_REPLICATE)
  scale, corner = np.float32([width, height]) / side, np.float32([left, top]) / side
  # In pixel centres: x' + 0.5 = scale (x + 0.5) + corner * size.
  matrix = lambda size: np.column_stack([np.diag(scale), (scale - 1) / 2 + corner * size])
  maps = {name: cv2.warpAffine(values, matrix(len(values)), values.shape) for name, values in maps.items()}
  return image, maps, landmarks * scale + corner


def to_size(image: np.ndarray, size: int) -> np.ndarray:
  """Returns a square image with a side of ``size`` pixels."""
  if len(image) == size:
    return image
  return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if len(image) > size else cv2.INTER_LINEAR)


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
  """Returns (h, w, channels) of an image (h, w) or (h, w, 3); ``channels`` is 1 or 3."""
  if image.ndim == 2 and channels == 3:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
  if image.ndim == 3 and channels == 1:
    image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
  return image.reshape(*image.shape[:2], channels)
