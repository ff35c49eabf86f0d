"""Image files from anywhere as uint8 pixels: upright, deep ones scaled, palettes and alpha resolved.

What is prepared and what is read from a folder comes this way, so that a picture is the same wherever it is read. What
is stored afterwards (``pixels.decode``) is plain: a PNG or JPEG of 8 bits, grey or RGB, upright.
"""

import functools
import io
from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image

from fer_jax.data import face
from fer_jax.landmarks.heatmap import FLIP

# The formats that are read, by the endings of their files. Pillow knows others that are no photographs, call another
# program (PostScript) or cannot be read by it alone.
_FORMATS = {
    'JPEG': ('.jpg', '.jpeg', '.jpe', '.jfif'), 'MPO': ('.mpo',), 'PNG': ('.png', '.apng'), 'BMP': ('.bmp',),
    'DIB': ('.dib',), 'GIF': ('.gif',), 'WEBP': ('.webp',), 'AVIF': ('.avif', '.avifs'), 'TIFF': ('.tif', '.tiff'),
    'JPEG2000': ('.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx'), 'TGA': ('.tga',), 'PCX': ('.pcx',),
    'PPM': ('.ppm', '.pgm', '.pbm', '.pnm', '.pfm'), 'ICO': ('.ico',), 'SGI': ('.sgi',), 'SUN': ('.ras',),
    'QOI': ('.qoi',), 'PSD': ('.psd',),
}
ENDINGS = tuple(ending for endings in _FORMATS.values() for ending in endings)

RATIO = 10  # Images whose sides differ more are no faces: enlarged until a face can be found, they fill the memory.

# What brings an image upright, by the number that its EXIF data have for its orientation.
_TURNS = {2: PIL.Image.Transpose.FLIP_LEFT_RIGHT, 3: PIL.Image.Transpose.ROTATE_180,
          4: PIL.Image.Transpose.FLIP_TOP_BOTTOM, 5: PIL.Image.Transpose.TRANSPOSE, 6: PIL.Image.Transpose.ROTATE_270,
          7: PIL.Image.Transpose.TRANSVERSE, 8: PIL.Image.Transpose.ROTATE_90}
_GREY = ('L', 'LA', '1')  # Modes of 8 bits or less; so are those that begin with I or F, of more.


class Turn(NamedTuple):
  """How an image was brought upright."""

  orientation: int  # As EXIF numbers them; 1: not at all.
  width: int  # Of the file as it is, in pixels; so is the height.
  height: int

  def points(self, points: np.ndarray) -> np.ndarray:
    """Points (..., 2), x and y in pixels of the file as it is, in pixels of the upright image."""
    x, y = np.moveaxis(np.asarray(points), -1, 0)
    left, top = self.width - x, self.height - y
    turned = {2: (left, y), 3: (left, top), 4: (x, top), 5: (y, x), 6: (top, x), 7: (top, left), 8: (y, left)}
    return np.stack(turned.get(self.orientation, (x, y)), -1)

  def landmarks(self, points: np.ndarray) -> np.ndarray:
    """As ``points``, for 68 landmarks (68, 2) or five (5, 2), of which left and right change places in a mirror."""
    mirrored = self.orientation in (2, 4, 5, 7)
    return self.points(points)[({68: FLIP, 5: [1, 0, 2, 4, 3]}[len(points)]) if mirrored else slice(None)]

  def box(self, box: tuple[float, float, float, float]) -> tuple[float, ...]:
    """As ``points``, for left, top, right and bottom."""
    (left, top), (right, bottom) = self.points(np.reshape(box, (2, 2))).tolist()
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)


class Opened(NamedTuple):
  """An image file."""

  pixels: np.ndarray  # Upright, uint8 (H, W) or RGB (H, W, 3).
  turn: Turn
  jpeg: bool
  plain: bool  # The file can be stored as it is.

  def file(self, pixels: np.ndarray) -> io.BytesIO:
    """Encodes ``pixels``, a part of the image, as a plain file of its kind: PNG, or JPEG where it came as JPEG."""
    return face.jpeg(pixels) if self.jpeg else face.png(pixels)


def read(encoded: bytes) -> Opened:
  """Reads an image file; stricter than OpenCV, which mends truncated ones. Of several pictures the first counts.

  16-bit grey is scaled by 1/257. 32-bit values, whole or not, have no range of their own: the lowest of 0 to 1 (not
  whole), 255, 65,535 and 2^32 - 1 that holds them, see ``_scaled``.

  Raises:
    ValueError: it is empty, truncated, corrupt, too thin, of values that no range fits, of 16 bits of which the upper
      four are not used, or no image; the message says which.
  """
  if not encoded:
    raise ValueError('empty file')
  try:
    image = PIL.Image.open(io.BytesIO(encoded), formats=_formats())
    check_sides(*image.size)
    kind, orientation = image.format, 1
    if kind == 'TIFF':  # It turns itself, and forgets that it did.
      orientation = _orientation(image)
    image.load()
    pixels = _pixels(image)
    if 8 < _bits(image, encoded) <= 16 and pixels.max() <= 16:
      raise _Refused('it has 16 bits for a value and is black, as where they hold values of 8 or 12 bits: save it '
                     'with 8 bits, or scale its values up')
    if kind != 'TIFF' and (orientation := _orientation(image)) != 1:
      pixels = np.asarray(PIL.Image.fromarray(pixels).transpose(_TURNS[orientation]))
  except PIL.UnidentifiedImageError as e:
    raise ValueError('not an image that can be read here') from e
  except _Refused as e:
    raise ValueError(str(e)) from e
  except Exception as e:  # Broken files reach Pillow's parsers in many ways, and each has its own exceptions.
    raise ValueError(f'unreadable or truncated image ({e})') from e
  jpeg = kind in ('JPEG', 'MPO')
  plain = image.mode in ('L', 'RGB') and orientation == 1 and (jpeg or kind == 'PNG' and _is_plain_png(encoded))
  height, width = pixels.shape[:2] if orientation < 5 else pixels.shape[1::-1]
  return Opened(pixels, Turn(orientation, width, height), jpeg, plain)


def decode(encoded: bytes) -> np.ndarray:
  """The pixels of an image file, uint8, grey (H, W) or RGB (H, W, 3); raises as ``read``."""
  return read(encoded).pixels


def stored(encoded: bytes) -> bytes:
  """An image file as a record holds it: as it is where it is plain, or written anew; raises as ``read``."""
  opened = read(encoded)
  return encoded if opened.plain else opened.file(opened.pixels).getvalue()


def channels(file: bytes | str) -> int:
  """1 for a grey image, 3 for another, by the head alone of a file or its content; 0 where it cannot be read."""
  try:
    with PIL.Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_formats()) as image:
      return 1 if image.mode in _GREY or image.mode[0] in 'IF' else 3
  except Exception:  # Whoever reads the file whole says why.
    return 0


def check_sides(width: int, height: int) -> None:
  """Raises ValueError where no face is as thin as that."""
  if max(width, height) > RATIO * min(width, height):
    raise _Refused(f'{width:,} x {height:,} pixels are too thin for a face: one side is more than {RATIO} times as '
                   'long as the other')


def _is_plain_png(encoded: bytes) -> bool:
  """Whether it has 8 bits or less, and OpenCV reads it as well; Pillow overlooks some damages."""
  return encoded[24] <= 8 and cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_ANYCOLOR) is not None


class _Refused(ValueError):
  """Why a good image file is not taken."""


@functools.cache
def _formats() -> list[str]:
  PIL.Image.init()
  return [name for name in _FORMATS if name in PIL.Image.OPEN]


def _orientation(image: PIL.Image.Image) -> int:
  try:
    number = image.getexif().get(274)
  except Exception:  # Broken EXIF data do not spoil the picture.
    return 1
  return number if number in _TURNS else 1


def _bits(image: PIL.Image.Image, encoded: bytes) -> int:
  """Of a value of a loaded image, where its format has more than 8 and tells."""
  if image.mode.startswith('I;16') or image.format == 'PPM' and image.mode == 'I':
    return 16
  return encoded[24] if image.format == 'PNG' else max(getattr(image, 'tag_v2', {}).get(258, (8,)))


def _pixels(image: PIL.Image.Image) -> np.ndarray:
  """The pixels of a loaded image as they lie in the file."""
  if image.mode[0] not in 'IF':
    mode = 'L' if image.mode in _GREY else 'RGB'
    return np.asarray(image if image.mode == mode else image.convert(mode))
  values, tags = np.asarray(image), getattr(image, 'tag_v2', {})
  if image.mode.startswith('I;16') or image.format == 'PPM' and image.mode == 'I':
    bits = min(tags.get(258, (16,))[0], 16)
    scaled = _scaled(values, (2 ** bits - 1,))
  else:
    if tags.get(339, (1,))[0] == 1 and image.mode == 'I':
      values = values.view(np.uint32)
    scaled = _scaled(values, (1, 255, 65_535, 2 ** 32 - 1) if image.mode == 'F' else (255, 65_535, 2 ** 32 - 1))
  return 255 - scaled if tags.get(262) == 0 else scaled  # TIFF's photometric interpretation: white is 0.


def _scaled(values: np.ndarray, tops: tuple[int, ...]) -> np.ndarray:
  """Brings values to 0 to 255, from 0 to the lowest of ``tops`` that holds them.

  Raises:
    ValueError: none does, or it is not sure: the largest value is less than a sixteenth of it, as where values from 0
      to 1 reach 1.01.
  """
  low, high = float(values.min()), float(values.max())
  top = next((top for top in tops if high <= top), 0)
  if not (low >= 0 and top and (top == tops[0] or 16 * high >= top)):  # NaN compares with nothing.
    raise _Refused(f'its values, {low:g} to {high:g}, fill none of the ranges from 0 to '
                   f'{", ".join(f"{top:,}" for top in tops)}: save it with 8 or 16 bits')
  return np.round(values * (255 / top)).astype(np.uint8)
