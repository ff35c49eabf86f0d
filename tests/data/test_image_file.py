"""Image files of every depth, mode, format and orientation become the same pixels; what cannot be used has a reason."""

import io
import struct

import cv2
import numpy as np
import PIL.Image
import pytest

from fer_jax.data import image_file
from fer_jax.landmarks.heatmap import FLIP

GREY = np.random.default_rng(0).integers(0, 256, (12, 20), dtype=np.uint8)
COLOUR = np.dstack([GREY, GREY // 2, 255 - GREY])


def encode(image, kind, **options):
  file = io.BytesIO()
  (image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)).save(file, kind, **options)
  return file.getvalue()


DEEP = {
    '16-bit PNG': encode(GREY.astype(np.uint16) * 257, 'PNG'),
    '16-bit TIFF': encode(GREY.astype(np.uint16) * 257, 'TIFF'),
    'big-endian TIFF': encode(PIL.Image.fromarray(GREY.astype('>u2') * 257), 'TIFF'),
    '16-bit PGM': encode(GREY.astype(np.int32) * 257, 'PPM'),
    'dark 16-bit PGM': encode(GREY.astype(np.int32) // 8 * 257, 'PPM'),
    '16-bit JPEG 2000': encode(GREY.astype(np.uint16) * 257, 'JPEG2000'),
    'whole numbers of 8 bits': encode(GREY.astype(np.int32), 'TIFF'),
    'whole numbers of 16 bits': encode(GREY.astype(np.int32) * 257, 'TIFF'),
    'fractions of 1': encode(np.float32(GREY) / 255, 'TIFF'),
    'fractions of 1 in PFM': encode(np.float32(GREY) / 255, 'PPM'),
    'fractions of 255': encode(np.float32(GREY), 'TIFF'),
    'fractions of 65,535': encode(np.float32(GREY) * 257, 'TIFF'),
    "OpenCV's float": cv2.imencode('.tiff', np.float32(GREY) / 255)[1].tobytes(),
    'grey and alpha': encode(PIL.Image.merge('LA', [PIL.Image.fromarray(GREY)] * 2), 'PNG'),
}


@pytest.mark.parametrize('name', DEEP)
def test_deep_grey_images_are_scaled(name):
  opened = image_file.read(DEEP[name])
  np.testing.assert_array_equal(opened.pixels, GREY // 8 if 'dark' in name else GREY)
  assert not opened.plain and image_file.channels(DEEP[name]) == 1
  # What is stored of it is read by OpenCV as it is.
  again = cv2.imdecode(np.frombuffer(image_file.stored(DEEP[name]), np.uint8), cv2.IMREAD_UNCHANGED)
  np.testing.assert_array_equal(again, opened.pixels)


def test_deep_colour_images_are_scaled():
  for ending in ('.png', '.tiff'):
    encoded = cv2.imencode(ending, COLOUR[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    opened = image_file.read(encoded)
    np.testing.assert_array_equal(opened.pixels, COLOUR)
    assert not opened.plain and image_file.channels(encoded) == 3


def test_16_bits_that_hold_fewer_are_refused_not_black():
  for values in (GREY, GREY.astype(np.uint16) * 16, COLOUR, COLOUR.astype(np.uint16) * 16):
    for ending in ('.png', '.tiff', '.pgm' if values.ndim == 2 else '.png'):
      encoded = cv2.imencode(ending, values.astype(np.uint16))[1].tobytes()
      with pytest.raises(ValueError, match='16 bits for a value and is black'):
        image_file.read(encoded)
  assert not image_file.decode(encode(GREY * 0, 'PNG')).any()


def tiff(data, bits, kind=1, photometric=1):
  """A TIFF of GREY's size: ``kind`` is 1 for whole numbers, 2 with a sign; ``photometric`` 0: white is 0."""
  tags = {256: 20, 257: 12, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 12, 279: len(data), 339: kind}
  return (struct.pack('<4sI', b'II*\0', 8 + len(data)) + data + struct.pack('<H', len(tags))
          + b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in tags.items()) + bytes(4))


def test_tiff_says_what_its_values_mean():
  bits = np.unpackbits((GREY.astype('>u2') << 4 | GREY >> 4).astype('>u2').view(np.uint8).reshape(-1, 2), axis=1)
  cases = {
      '12 bits': tiff(np.packbits(bits[:, 4:]).tobytes(), 12),
      '32 bits': tiff((GREY.astype(np.uint32) * 16_843_009).tobytes(), 32),
      'signed': tiff((GREY.astype(np.int32) * 257).tobytes(), 32, kind=2),
      'white is 0': tiff(((255 - GREY).astype(np.uint16) * 257).tobytes(), 16, photometric=0),
      'white is 0, 8 bits': tiff((255 - GREY).tobytes(), 8, photometric=0),
  }
  for name, encoded in cases.items():
    np.testing.assert_array_equal(image_file.decode(encoded), GREY, err_msg=name)


@pytest.mark.parametrize('values', [
    np.float32(GREY) / 254, np.float32(GREY) - 1, np.float32(GREY) * np.nan, np.float32(GREY) * 1e9,
    GREY.astype(np.int32) * 3, GREY.astype(np.int32) - 1])
def test_values_without_a_range_are_refused_not_guessed(values):
  with pytest.raises(ValueError, match=r'fill none of the ranges from 0 to .*save it with 8 or 16 bits'):
    image_file.decode(encode(values, 'TIFF'))


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP', 'TIFF'])
def test_images_and_their_points_are_brought_upright(kind):
  exact = {'JPEG': {'quality': 100, 'subsampling': 0}, 'WEBP': {'lossless': True}}.get(kind, {})
  turned = {1: COLOUR, 2: COLOUR[:, ::-1], 3: COLOUR[::-1, ::-1], 4: COLOUR[::-1], 5: COLOUR.transpose(1, 0, 2),
            6: np.rot90(COLOUR, -1), 7: np.rot90(COLOUR, 2).transpose(1, 0, 2), 8: np.rot90(COLOUR)}
  for orientation, upright in turned.items():
    exif = PIL.Image.Exif()
    exif[274] = orientation
    opened = image_file.read(encode(COLOUR, kind, exif=exif, **exact))
    np.testing.assert_allclose(opened.pixels.astype(int), upright, atol=4 if kind == 'JPEG' else 0)
    assert opened.plain == (orientation == 1 and kind in ('PNG', 'JPEG'))
    x, y = opened.turn.points(np.array([5.5, 3.5]))  # The centre of a pixel.
    np.testing.assert_array_equal(upright[int(y), int(x)], COLOUR[3, 5])
    left, top, right, bottom = map(int, opened.turn.box((2, 1, 9, 5)))
    np.testing.assert_array_equal(np.sort(upright[top:bottom, left:right], axis=None),
                                  np.sort(COLOUR[1:5, 2:9], axis=None))
    points = np.random.default_rng(0).uniform(0, 12, (68, 2))
    order = FLIP if orientation in (2, 4, 5, 7) else np.arange(68)
    np.testing.assert_array_equal(opened.turn.landmarks(points), opened.turn.points(points)[order])


def test_orientations_that_are_none_are_ignored():
  for number in (0, 9, 65_535):
    exif = PIL.Image.Exif()
    exif[274] = number
    opened = image_file.read(encode(COLOUR, 'PNG', exif=exif))
    assert opened.turn.orientation == 1 and opened.plain
  opened = image_file.read(encode(COLOUR, 'PNG', exif=b'Exif\0\0broken'))
  np.testing.assert_array_equal(opened.pixels, COLOUR)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'BMP', 'DIB', 'GIF', 'WEBP', 'AVIF', 'TIFF', 'JPEG2000', 'TGA', 'PCX',
                                  'PPM', 'ICO', 'SGI', 'MPO', 'QOI'])
def test_formats(kind):
  smooth = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 6
  try:
    encoded = encode(smooth if kind not in ('QOI', 'MPO') else np.dstack([smooth] * 3), kind)
  except (KeyError, OSError) as e:
    pytest.skip(f'this Pillow cannot write it: {e!r}')
  pixels = image_file.decode(encoded)
  np.testing.assert_allclose(pixels if pixels.ndim == 2 else pixels[..., 0], smooth, atol=12)


def test_decode_keeps_grey_and_converts_the_rest():
  np.testing.assert_array_equal(image_file.decode(encode(GREY, 'PNG')), GREY)
  for mode in ('RGB', 'RGBA', 'P'):
    image = PIL.Image.fromarray(COLOUR // 64 * 64 if mode == 'P' else COLOUR).convert(mode)
    encoded = encode(image, 'PNG')
    np.testing.assert_array_equal(image_file.decode(encoded), np.asarray(image.convert('RGB')))
    assert image_file.channels(encoded) == 3
  assert image_file.channels(b'text') == 0


@pytest.mark.parametrize('encoded, reason', [
    (b'', 'empty file'), (b'text', 'not an image'),
    (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'not an image'),
    (encode(GREY, 'PNG')[:-100], 'truncated'),
    (encode(GREY, 'PNG')[:150] + bytes(20) + encode(GREY, 'PNG')[170:], 'unreadable'),
    (encode(GREY, 'JPEG')[:-20], 'truncated'),
    (encode(GREY[:1, :].repeat(600, 1), 'PNG'), '12,000 x 1 pixels are too thin'),
    (encode(GREY[:, :1], 'PNG'), '1 x 12 pixels are too thin')])
def test_what_cannot_be_used_has_a_reason(encoded, reason):
  with pytest.raises(ValueError, match=reason):
    image_file.decode(encoded)
