"""What a file of weights may ask of its reader: why one is refused, and how much memory it can make him take."""

_LEAST, _GROWTH = 1 << 28, 16  # Bytes that any file may fill, and how many times its own size where that is more.


class Refused(Exception):
  """Why a file is not read: the rest of a sentence that begins with its path."""


class Room:
  """The memory that a file may fill: a small one that says it holds gigabytes is refused before they are taken."""

  def __init__(self, size: int):
    """Args: size, of the file in bytes."""
    self._left = self._whole = max(_LEAST, _GROWTH * size)

  def take(self, size: int) -> None:
    """Raises Refused where ``size`` more bytes are too many."""
    self._left -= size
    if self._left < 0:
      raise Refused(f'asks for more than {self._whole / 2 ** 20:,.0f} MiB of memory, too much for a file of its size: it '
                    'is damaged, or made to do harm. Obtain it anew.')
