"""dlib's face network, ``dlib_face_recognition_resnet_model_v1.dat``: its layers in order of computation."""

import math

import numpy as np

from fer_jax.models.tensors.limits import Refused

MAGIC = b'\x01\x01\x01\x0dloss_metric_2'

_INPUT = 'input_rgb_image_sized'
# Versions of nested layers, before the input: 1 of a tag or a skip, which are no more than that, higher ones of layers
# that follow behind the input.
_MARKER, _HIGHEST = 1, 3
_BOOLS, _CACHES = 3, 3  # After each layer: what training last did, and tensors that it worked on.
_WINDOW = 6  # Sizes, strides and paddings of a convolution or a pooling.
_RATES = 4  # Of learning, for weights and biases.


class _Stream:
  """dlib's serialised values, one after the other."""

  def __init__(self, content: bytes):
    self._content, self._at = memoryview(content), 0

  def left(self) -> int:
    """Bytes that are not read."""
    return len(self._content) - self._at

  def take(self, count: int) -> memoryview:
    """The next bytes."""
    if not 0 <= count <= self.left():
      raise Refused('ends in the middle of a value: it is cut off or damaged. Obtain it anew.')
    self._at += count
    return self._content[self._at - count:self._at]

  def integer(self) -> int:
    """A byte of sign and length, and that many bytes."""
    control = self.take(1)[0]
    value = int.from_bytes(self.take(control & 15), 'little')
    return -value if control & 128 else value

  def integers(self, count: int) -> list[int]:
    """Several."""
    return [self.integer() for _ in range(count)]

  def text(self, length: int | None = None) -> str:
    """A string, of a length that may have been read."""
    return bytes(self.take(self.integer() if length is None else length)).decode('latin-1')

  def floats(self, count: int) -> None:
    """Passes over floats, each a mantissa and an exponent of 2."""
    self.integers(2 * count)

  def tensor(self) -> np.ndarray:
    """float32 numbers, flat."""
    version, *sides = self.integers(5)
    if version != 2 or min(sides) < 0:
      raise Refused('has no tensor of dlib where one belongs: it is damaged. Obtain it anew.')
    return np.frombuffer(self.take(4 * math.prod(sides)), '<f4')

  def view(self) -> tuple[int, ...]:
    """The shape of a part of a layer's parameters."""
    version, *shape = self.integers(5)
    if version != 1 or min(shape) < 0:
      raise Refused('has no part of parameters where one belongs: it is damaged. Obtain it anew.')
    return tuple(shape)


def read(content: bytes) -> dict[str, np.ndarray]:
  """The parameters of a network of the loss ``loss_metric_2``: dlib's for faces, or one of the same kinds of layers.

  Returns:
    float32, counted per kind from the input: ``con_0.weight`` (out, in, height, width), ``con_0.bias`` (out,),
    ``affine_0.weight``, the factor, and ``affine_0.bias`` (channels,), ``fc_0.weight`` (out, in).

  Raises:
    Refused: it is cut off, has other layers, or parameters that do not fill their shapes.
  """
  stream, tensors, counts = _Stream(content), {}, dict.fromkeys(('con', 'affine', 'fc'), 0)
  stream.take(len(MAGIC))
  stream.floats(2)  # Of the loss.
  layers = 0
  while (number := stream.integer()) <= _HIGHEST:
    layers += number > _MARKER
  if (name := stream.text(number)) != _INPUT:
    raise Refused(f"is a network of dlib's with the input '{name[:40]}', not its face network.")
  stream.floats(3)  # The means of the channels.
  stream.integers(2)  # The image's sides.
  for layer in range(layers):
    kind = stream.text()
    parts = _layer(stream, kind)
    if parts:
      short = kind.partition('_')[0]
      tensors |= {f'{short}_{counts[short]}.{part}': value for part, value in parts.items()}
      counts[short] += 1
    stream.take(_BOOLS)
    for _ in range(_CACHES):
      stream.tensor()
    if not layer:
      stream.integer()  # Images that the input makes of one.
  if stream.left():
    raise Refused(f'has {stream.left():,} bytes after its last layer: it is damaged. Obtain it anew.')
  return tensors


def _layer(stream: _Stream, kind: str) -> dict[str, np.ndarray]:
  """Reads the fields of a layer; returns its parameters."""
  match kind:
    case 'con_4':
      parameters = stream.tensor()
      stream.integers(1 + _WINDOW)
      weight, bias = stream.view(), stream.view()
      stream.floats(_RATES)
      shapes = {'weight': weight, 'bias': bias[1:2]}
    case 'affine_':
      parameters = stream.tensor()
      shapes = {'weight': stream.view()[1:2], 'bias': stream.view()[1:2]}
      stream.integer()  # Whether it stands behind a convolution or a matrix.
    case 'fc_2':
      stream.integers(2)
      parameters = stream.tensor()
      weight, bias = stream.view(), stream.view()
      stream.integer()  # Whether there are biases.
      stream.floats(_RATES)
      shapes = {'weight': weight[:2]} | ({'bias': bias[1:2]} if math.prod(bias) else {})
    case 'max_pool_2' | 'avg_pool_2':
      stream.integers(_WINDOW)
      return {}
    case 'relu_' | 'add_prev_':
      return {}
    case _:
      raise Refused(f"has a layer '{kind[:40]}', which dlib's face network lacks: it is another network, or damaged.")
  sizes = [math.prod(shape) for shape in shapes.values()]
  if sum(sizes) != parameters.size:
    raise Refused(f"has a layer '{kind}' of {parameters.size:,} parameters whose shapes need {sum(sizes):,}: it is "
                  'damaged. Obtain it anew.')
  split = zip(shapes.items(), np.split(parameters, np.cumsum(sizes)[:-1]), strict=True)
  values = {part: value.reshape(shape) for (part, shape), value in split}
  return values | {'weight': values['weight'].T} if kind == 'fc_2' else values  # A matrix (in, out) there.
