"""The one exception for mistakes a user can mend, and the spelling help its messages share."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """Bad input: the message says what is wrong, where, and what to do. Commands print it and exit with status 2."""


def nearest(name: str, choices: Iterable[str]) -> str:
  """Returns ``"; did you mean 'x'? Choices: ..."`` for an unknown ``name``, to end an error message with."""
  choices = sorted(choices)
  close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
  hint = f"; did you mean '{close[0]}'?" if close else '.'
  return f"{hint} Choices: {', '.join(choices)}."
