"""What is printed: names of files and classes come from data, and must not steer the terminal."""

import re

# Control characters but for the ends of lines and tabs, and those that turn the direction of writing.
_STEERING = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]')


def plain(text: object) -> str:
  """The text with an escape in the place of every character that a terminal would obey."""
  return _STEERING.sub(lambda found: found[0].encode('unicode_escape').decode(), str(text))
