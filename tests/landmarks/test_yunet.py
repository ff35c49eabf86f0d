"""YuNet behind OpenCV: where it puts faces and points, which a tiny model of its form decides; and what is no model.

The model is written here: every cell of 8 x 8 pixels that is red is a face, whose box and points lie at known places.
"""

import struct
import sys

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.landmarks import align, detect
from fer_jax.landmarks.yunet import YuNet

STRIDES = (8, 16, 32)
SIDE = 6.0  # Of a box in cells.


def field(number, value):
  """A field of a protocol buffer: a whole number, or bytes, text, a message."""
  if isinstance(value, int):
    return varint(number << 3) + varint(value)
  value = value.encode() if isinstance(value, str) else value
  return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
  out = b''
  while value > 127:
    out, value = out + bytes([value & 127 | 128]), value >> 7
  return out + bytes([value])


def node(kind, inputs, output, **whole):
  """A node of the graph; attributes are lists of whole numbers."""
  attributes = b''.join(field(5, field(1, name) + b''.join(field(8, value) for value in values) + field(20, 7))
                        for name, values in whole.items())
  return field(1, b''.join(field(1, name) for name in inputs) + field(2, output) + field(4, kind) + attributes)


def tensor(name, values):
  kind = 7 if values.dtype == np.int64 else 1
  return field(5, b''.join(field(1, side) for side in values.shape) + field(2, kind) + field(8, name)
               + field(9, values.tobytes()))


def form(number, name, shape):
  """An input or an output of the graph."""
  sides = b''.join(field(1, field(1, side)) for side in shape)
  return field(number, field(1, name) + field(2, field(1, field(1, 1) + field(2, sides))))


def model(points):
  """The file: 'cls' and 'obj' are how red a cell is, 'bbox' and 'kps' are constant."""
  nodes, tensors, outputs = b'', b'', b''
  for stride in STRIDES:
    rows = (640 // stride) ** 2
    red = np.zeros((1, 3, stride, stride), np.float32)
    red[0, 2] = (stride == 8) / (255 * stride ** 2)  # OpenCV's images are BGR.
    other = np.zeros((1, 3, stride, stride), np.float32)
    other[0, 1] = -red[0, 2]
    constant = {'cls': (red + other, [0.0]), 'obj': (red + other, [0.0]),
                'bbox': (None, [0.5, 0.5, np.log(SIDE), np.log(SIDE)]), 'kps': (None, np.ravel(points))}
    for name, (weights, bias) in constant.items():
      bias = np.float32(bias)
      weights = np.zeros((len(bias), 3, stride, stride), np.float32) if weights is None else weights
      at = f'{name}_{stride}'
      tensors += tensor(f'w_{at}', weights) + tensor(f'b_{at}', bias)
      tensors += tensor(f's_{at}', np.array([1, -1, len(bias)], np.int64))
      nodes += node('Conv', ['input', f'w_{at}', f'b_{at}'], f'c_{at}', kernel_shape=[stride] * 2, strides=[stride] * 2)
      nodes += node('Transpose', [f'c_{at}'], f't_{at}', perm=[0, 2, 3, 1])
      nodes += node('Reshape', [f't_{at}', f's_{at}'], at)
      outputs += form(12, at, (1, rows, len(bias)))
  graph = nodes + field(2, 'tiny') + tensors + form(11, 'input', (1, 3, 640, 640)) + outputs
  return field(1, 8) + field(8, field(1, '') + field(2, 13)) + field(7, graph)


# In cells from the left top corner of the face's cell: the places of five points, as YuNet numbers them.
POINTS = np.float32([(-1, -0.5), (2, -0.25), (0.5, 1), (-0.5, 2), (1.5, 2.25)])


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  path = tmp_path_factory.mktemp('model') / 'tiny.onnx'
  path.write_bytes(model(POINTS))
  return path


@pytest.fixture
def yunet(path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'dlib', None)
  detect.detector.cache_clear()
  yield YuNet(str(path))
  detect.detector.cache_clear()


def photograph(cells, shape=(320, 480), cell=8):
  image = np.full((*shape, 3), 90, np.uint8)
  for x, y, red in cells:
    image[y * cell:(y + 1) * cell, x * cell:(x + 1) * cell] = red, 0, 0
  return image


def test_boxes_points_and_scores_of_several_faces(yunet):
  cells = [(10, 20, 200), (40, 30, 255), (50, 8, 180)]
  found = yunet.faces(photograph(cells))
  assert [round(one.score, 2) for one in found] == [1.0, 0.78, 0.71]  # The surest first.
  for one, (x, y, _) in zip(found, [cells[1], cells[0], cells[2]], strict=True):
    corner = np.array([x, y]) * 8.0
    np.testing.assert_allclose(one.box, [*(corner + 4 - 24), *(corner + 4 + 24)], atol=1e-3)
    np.testing.assert_allclose(one.points, corner + POINTS * 8, atol=1e-3)
    assert one.landmarks is None  # dlib is not installed.


def test_large_photographs_are_reduced_and_grey_ones_are_taken(yunet):
  found, = yunet.faces(photograph([(10, 20, 255)], (960, 1920), cell=24))
  np.testing.assert_allclose(found.points, np.array([10, 20]) * 24.0 + POINTS * 24, atol=1e-2)
  assert yunet.faces(np.full((100, 130), 200, np.uint8)) == []


def test_the_points_are_those_of_the_template(yunet):
  found, = yunet.faces(photograph([(20, 20, 255)]))
  matrix = align.similarity(found.points, 112)
  # Neither mirrored nor upside down: they come to their places of the template, but for their own proportions.
  np.testing.assert_allclose(align.move(found.points, matrix), align.TEMPLATE * 112, atol=12)
  assert matrix[0, 0] > 0 and abs(matrix[0, 1]) < 0.2 * matrix[0, 0]


def test_dlib_adds_landmarks_where_it_is_installed(path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  found, = YuNet(str(path)).faces(photograph([(20, 20, 255)]))
  assert found.landmarks.shape == (68, 2) and np.isfinite(found.landmarks).all()
  with pytest.raises(UserError, match='no landmark model at /no/such.dat'):
    YuNet(str(path), '/no/such.dat')


def test_what_is_no_model_is_told(tmp_path):
  with pytest.raises(UserError, match=f'no face detector at {tmp_path}/none.onnx; give the path of a YuNet'):
    YuNet(str(tmp_path / 'none.onnx'))
  wrong = tmp_path / 'wrong.onnx'
  for content in (b'', b'no model', model(POINTS).replace(b'kps_8', b'pks_8'), struct.pack('<100i', *range(100))):
    wrong.write_bytes(content)
    with pytest.raises(UserError, match=r'wrong\.onnx is not a YuNet face detector'):
      YuNet(str(wrong))
