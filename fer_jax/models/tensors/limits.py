"""What a file of weights may ask of its reader: why one is refused, and how much memory it can make him take."""

_LEAST, _GROWTH = 1 << 28, 16  # Bytes that any file may fill, and how many times its own size where that is more.


class Refused(Exception):
  """Why a file is not read: the rest of a sentence that begins with its path."""


class Room:
  """The memory that a file may fill: a small one that says it holds gigabytes is refused before they are taken."""

  def __init__(self, size: int):
    """Args: size, of the file in bytes."""
    self._size, self._taken = size, 0

  def add(self, size: int) -> None:
    """Counts another file of that size to this one."""
    self._size += size

  def take(self, size: int) -> None:
    """Raises Refused where ``size`` more bytes are too many."""
    self._taken += size
    if self._taken > max(_LEAST, _GROWTH * self._size):
      raise Refused('asks for far more memory than a file of its size can fill with weights: it is damaged, or made to '
                    'do harm. Obtain it anew.')
