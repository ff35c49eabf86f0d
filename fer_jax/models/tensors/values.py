"""What reading a pickle yields, in the place of objects, and the tensors in it by name."""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fer_jax.models.tensors.limits import Refused, Room

Names = Mapping[str, Callable[..., Any] | None]  # What makes data of a name's arguments; None: it is only a value.
KEYS = (str, int, float, bytes, type(None))  # Other keys are no part of a name; a tuple may be too deep to be one.

_DEPTH, _VALUES = 50, 1_000_000  # Dictionaries inside of each other, and values in all of them.


class Made:
  """What an allowed name makes of its arguments, or a name that is itself a value, such as torch.float32."""

  def build(self, state: Any) -> None:
    """Takes the state that a pickle gives to an object; it is not needed."""


class Ordered(dict, Made):
  """A dictionary of whatever class; its attributes, such as ``_metadata``, are not kept."""


class Record(dict, Made):
  """An object that only has attributes: here they are its items."""

  def build(self, state: Any) -> None:
    """Takes the attributes."""
    self.update({key: value for key, value in state.items() if isinstance(key, str)})


class Name(Made):
  """A name of the table, and what makes data of its arguments."""

  def __init__(self, text: str, make: Callable[..., Any] | None):
    self.text, self.make = text, make


class Deferred(Made, abc.ABC):
  """A tensor, whose numbers may come later in the file."""

  @abc.abstractmethod
  def array(self) -> np.ndarray | None:
    """Its numbers, in the file's memory and of the file's type; None where it holds something else, such as strings."""


def flat(value: Any, room: Room) -> dict[str, Deferred]:
  """The tensors in nested dictionaries and lists by dotted names, in order.

  Raises:
    Refused: it is nested too deep, or two tensors have one name.
  """
  tensors: dict[str, Deferred] = {}
  left = _VALUES
  todo: list[tuple[Any, tuple | None, int]] = [(value, None, 0)]  # Value, its key and the way to it, how deep it is.
  while todo:
    value, way, depth = todo.pop()
    if isinstance(value, Deferred):
      name = _joined(way, room)
      if name in tensors:
        raise Refused(f"holds two tensors of the name '{name[:200]}'; save them under different ones.")
      tensors[name] = value
    elif isinstance(value, dict | list | tuple):
      left -= len(value)
      if depth == _DEPTH or left < 0:
        raise Refused('nests dictionaries or lists too deep, or without end: it is damaged, or made to do harm.')
      items = list(value.items() if isinstance(value, dict) else enumerate(value))
      todo += [(item, (key, way), depth + 1) for key, item in reversed(items)]
  return tensors


def _joined(way: tuple | None, room: Room) -> str:
  if not way:
    raise Refused('holds one tensor without a name; save a dictionary of names and tensors.')
  parts = []
  while way:
    key, way = way
    parts.append(key.decode('latin-1') if isinstance(key, bytes) else str(key))
    room.take(len(parts[-1]))
  return '.'.join(reversed(parts))
