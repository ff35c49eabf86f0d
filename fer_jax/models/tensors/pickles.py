"""Pickles as data: an interpreter that builds dictionaries, lists, numbers and arrays, and never imports or calls.

A pickle is a program. Here its names are only looked up in a table of our own (``names.py``, ``torch.py``), whose
functions make data; any other name refuses the file, used or not. ``pickletools`` parses the operations and does
nothing else.
"""

import io
import pickletools
from collections.abc import Callable, Iterator
from typing import Any

from fer_jax.models.tensors.limits import Refused, Room
from fer_jax.models.tensors.values import KEYS, Made, Name, Names

_COPIED = 64  # Bytes that one item of a list or dictionary takes when it is copied.
# Modules of Python 2, NumPy 1 and Python 3.13, and what they are called in the table.
_RENAMED = {'__builtin__': 'builtins', 'copy_reg': 'copyreg', 'numpy.core': 'numpy._core', 'pathlib._local': 'pathlib'}


def operations(file: io.BytesIO) -> Iterator[tuple[str, Any]]:
  """Yields name and argument of the operations of one pickle, and leaves ``file`` behind it; ValueError: no pickle."""
  while True:
    code = file.read(1)
    operation = pickletools.code2op.get(code.decode('latin-1'))
    if not operation:
      raise ValueError('it is cut off' if not code else f'no operation of a pickle: {code!r}')
    if operation.name == 'STRING':
      text = file.readline()  # Python 2's bytes as source text, of which pickletools reads ASCII alone.
      if text[:1] not in (b"'", b'"') or text[1:][-2:] != text[:1] + b'\n':
        raise ValueError('a string of its pickle has no end')
      yield 'STRING', text[1:-2].decode('unicode-escape')
    else:
      yield operation.name, operation.arg.reader(file) if operation.arg else None
    if operation.name == 'STOP':
      return


def is_pickle(content: bytes) -> bool:
  """Whether it begins as pickles do since protocol 2, or is a whole one of an older protocol, which has no mark."""
  if content[:1] == b'\x80' and content[1:2] in (b'\x02', b'\x03', b'\x04', b'\x05'):
    return True
  file = io.BytesIO(content)
  try:
    return all(True for _ in operations(file)) and file.tell() == len(content)
  except Exception:  # Other files fail in many ways.
    return False


def load(file: io.BytesIO, names: Names, room: Room, persistent: Callable[[Any], Any] | None = None) -> Any:
  """Reads one pickle of any protocol, and leaves ``file`` behind it.

  Args:
    names: those that it may hold, of classes and functions that others would call.
    persistent: makes data of a persistent id; None: there are none.

  Raises:
    Refused: another name, or an operation on something that it does not fit.
    Exception: of many kinds, where the pickle is damaged.
  """
  return _Machine(names, room, persistent).run(file)


class _Machine:
  """The stack machine that a pickle is a program for."""

  def __init__(self, names: Names, room: Room, persistent: Callable[[Any], Any] | None):
    self._names, self._room, self._persistent = names, room, persistent
    self._stack: list[Any] = []
    self._marks: list[int] = []
    self._memo: dict[int, Any] = {}

  def run(self, file: io.BytesIO) -> Any:
    """Returns what the pickle leaves on the stack."""
    for operation, argument in operations(file):
      self._do(operation, argument)
    return self._stack.pop()

  def _do(self, operation: str, argument: Any) -> None:
    stack = self._stack
    match operation:
      case 'PROTO' | 'FRAME' | 'STOP' | 'READONLY_BUFFER':
        pass
      case 'MARK':
        self._marks.append(len(stack))
      case 'POP':
        del stack[-1 if not self._marks or self._marks[-1] < len(stack) else self._marks.pop():]
      case 'POP_MARK':
        self._since_mark()
      case 'DUP':
        stack.append(stack[-1])
      case 'PUT' | 'BINPUT' | 'LONG_BINPUT':
        self._memo[argument] = stack[-1]
      case 'MEMOIZE':
        self._memo[len(self._memo)] = stack[-1]
      case 'GET' | 'BINGET' | 'LONG_BINGET':
        stack.append(self._memo[argument])
      case 'NONE' | 'NEWTRUE' | 'NEWFALSE' | 'EMPTY_TUPLE':
        stack.append({'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}[operation])
      case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
        stack.append(tuple(self._last(int(operation[-1]))))
      case 'TUPLE':
        stack.append(tuple(self._since_mark()))
      case 'EMPTY_LIST' | 'EMPTY_SET':
        stack.append([])
      case 'LIST' | 'FROZENSET':
        stack.append(self._since_mark())
      case 'APPEND':
        self._extend(self._last(1))
      case 'APPENDS' | 'ADDITEMS':
        self._extend(self._since_mark())
      case 'EMPTY_DICT':
        stack.append({})
      case 'DICT':
        items = self._since_mark()
        stack.append({})
        self._set(items)
      case 'SETITEM':
        self._set(self._last(2))
      case 'SETITEMS':
        self._set(self._since_mark())
      case 'GLOBAL':
        stack.append(self._name(*argument.split(' ', 1)))
      case 'STACK_GLOBAL':
        stack.append(self._name(*self._last(2)))
      case 'INST':
        stack.append(self._call(self._name(*argument.split(' ', 1)), self._since_mark()))
      case 'OBJ':
        named, *arguments = self._since_mark()
        stack.append(self._call(named, arguments))
      case 'REDUCE' | 'NEWOBJ':
        stack.append(self._call(*self._last(2)))
      case 'NEWOBJ_EX':
        named, arguments, keywords = self._last(3)
        if keywords:
          raise Refused(f'gives {_shown(named)} arguments by name, which nothing that is read here needs.')
        stack.append(self._call(named, arguments))
      case 'BUILD':
        state, = self._last(1)
        self._charge(state if isinstance(state, tuple) else [state])
        if not isinstance(stack[-1], Made):
          raise Refused(f'gives {_shown(stack[-1])} a state, which nothing that is read here needs.')
        stack[-1].build(state)
      case 'BINPERSID' if self._persistent:
        stack.append(self._persistent(stack.pop()))
      case 'PERSID' | 'BINPERSID' | 'EXT1' | 'EXT2' | 'EXT4' | 'NEXT_BUFFER':
        raise Refused(f'is a pickle that refers to things outside of it ({operation}), which are not known here.')
      case _:  # Numbers, strings and bytes, of whatever length.
        stack.append(argument)

  def _since_mark(self) -> list[Any]:
    return self._last(len(self._stack) - self._marks.pop())

  def _last(self, count: int) -> list[Any]:
    """Takes the last values from the stack."""
    first = len(self._stack) - count
    if first < (self._marks[-1] if self._marks else 0) or count < 0:
      raise ValueError('an operation of its pickle lacks a value')
    values = self._stack[first:]
    del self._stack[first:]
    return values

  def _extend(self, values: list[Any]) -> None:
    if not isinstance(self._stack[-1], list):
      raise Refused(f'appends to {_shown(self._stack[-1])}, which is no list.')
    self._stack[-1].extend(values)

  def _set(self, items: list[Any]) -> None:
    if not isinstance(self._stack[-1], dict):
      raise Refused(f'sets items of {_shown(self._stack[-1])}, which is no dictionary.')
    keys_and_values = zip(items[::2], items[1::2], strict=True)
    self._stack[-1].update((key, value) for key, value in keys_and_values if isinstance(key, KEYS))

  def _name(self, module: Any, name: Any) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
      raise ValueError('its pickle has a name that is no text')
    old = next((old for old in _RENAMED if f'{module}.'.startswith(f'{old}.')), None)
    text = f'{_RENAMED[old]}{module[len(old):]}.{name}' if old else f'{module}.{name}'
    if text not in self._names:
      raise Refused(f'holds or calls {text[:100]}, and a pickle is read for its numbers alone: it is refused, and '
                    'nothing of it was run. Whoever made it can save these: torch.save(model.state_dict(), PATH).')
    return Name(text, self._names[text])

  def _call(self, named: Any, arguments: Any) -> Any:
    if not isinstance(named, Name) or not named.make or not isinstance(arguments, list | tuple):
      raise Refused(f'calls {_shown(named)}, which nothing that is read here needs.')
    self._charge(arguments)
    return named.make(*arguments)

  def _charge(self, values: Any) -> None:
    """Counts what is going to be copied, which a pickle of a few bytes can ask for again and again."""
    for value in values:
      if isinstance(value, str | bytes | bytearray | list | tuple | dict):
        self._room.take(len(value) * (_COPIED if isinstance(value, list | tuple | dict) else 1))


def _shown(value: Any) -> str:
  return value.text if isinstance(value, Name) else f'a {type(value).__name__}'
