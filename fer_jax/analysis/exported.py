"""Exported files, opened again: as functions of their inputs, compared with the network they are of, and timed."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import export as stablehlo

from fer_jax.errors import UserError

TOLERANCE = 1e-4  # Between logits of a file and of the network, of the largest logit where that is above 1.

_BATCHES = (1, 32)  # Faces that are timed together.


def open_onnx(content: bytes) -> Callable[..., dict[str, np.ndarray]]:
  """An ONNX file as a function of its inputs, by ONNX Runtime on CPU."""
  import onnxruntime
  session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
  inputs, outputs = ([each.name for each in of] for of in (session.get_inputs(), session.get_outputs()))
  return lambda *arrays: dict(zip(outputs, session.run(outputs, dict(zip(inputs, arrays, strict=True))), strict=True))


def open_stablehlo(content: bytes) -> Callable[..., dict[str, np.ndarray]]:
  """A StableHLO file as a function of its inputs, by JAX."""
  call = jax.jit(stablehlo.deserialize(bytearray(content)).call)
  return lambda *arrays: jax.device_get(call(*arrays))


OPEN = {'onnx': open_onnx, 'stablehlo': open_stablehlo}


def check(opened: Callable[..., Mapping[str, np.ndarray]], reference: Callable[..., Mapping[str, Any]],
          faces: Sequence[np.ndarray], what: str) -> dict[str, Any]:
  """Compares a file with the network on faces, and times both.

  Args:
    opened: the file as a function.
    reference: the network.
    faces: arrays of its inputs, a row a face.
    what: the file's format.

  Returns:
    'faces', 'logits_apart' (largest difference), 'same_class' (faces), 'seconds' {batch: {'file', 'jax'}}, medians of
    7 calls in turns.

  Raises:
    UserError: logits are further apart than ``TOLERANCE``, or a class differs.
  """
  apart, same, largest = 0.0, 0, 1.0
  for batch, count in _batches(faces, _BATCHES[-1]):
    ours, theirs = (np.asarray(each(*batch)['logits'])[:count] for each in (reference, opened))
    apart = max(apart, float(np.abs(ours - theirs).max()))
    largest = max(largest, float(np.abs(ours).max()))
    same += int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
  if not apart <= TOLERANCE * largest or same < len(faces[0]):
    raise UserError(f'{what}: the file does not say what the network says: logits are up to {apart:.2g} apart, and '
                    f'{len(faces[0]) - same:,} of {len(faces[0]):,} classes differ. Nothing is left behind.')
  return {'faces': len(faces[0]), 'logits_apart': apart, 'same_class': same, 'seconds': {
      str(size): _times(opened, reference, [np.resize(each, (size, *each.shape[1:])) for each in faces])
      for size in _BATCHES}}


def _batches(faces: Sequence[np.ndarray], size: int) -> Iterator[tuple[list[np.ndarray], int]]:
  for first in range(0, len(faces[0]), size):
    parts = [each[first:first + size] for each in faces]
    # Of one size, which the network is compiled for.
    yield [np.resize(part, (size, *part.shape[1:])) for part in parts], len(parts[0])


def _times(opened: Callable[..., Any], reference: Callable[..., Any], arrays: Sequence[np.ndarray]) -> dict[str, float]:
  both, seconds = {'file': opened, 'jax': lambda *given: jax.device_get(reference(*given))}, {'file': [], 'jax': []}
  for turn in range(8):
    for name, call in both.items():
      began = time.perf_counter()
      call(*arrays)
      if turn:  # The first compiles.
        seconds[name].append(time.perf_counter() - began)
  return {name: float(np.median(values)) for name, values in seconds.items()}
