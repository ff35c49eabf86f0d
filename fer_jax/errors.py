"""The one exception for mistakes a user can mend, and what its messages share: spelling help and lists of problems."""

import difflib
from collections.abc import Iterable, Sequence

SHOWN = 20  # Problems of one kind in a message.


class UserError(Exception):
  """Bad input: the message says what is wrong, where, and what to do. Commands print it and exit with status 2."""


def nearest(name: str, choices: Iterable[str]) -> str:
  """Returns ``"; did you mean 'x'? Choices: ..."`` for an unknown ``name``, to end an error message with."""
  choices = sorted(choices)
  close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
  hint = f"; did you mean '{close[0]}'?" if close else '.'
  return f"{hint} Choices: {', '.join(choices)}."


def raise_if(problems: Sequence[str], what: str, hint: str = '') -> None:
  """Raises UserError where there are problems: ``what``, how many, the first of them a line each, and ``hint``."""
  if problems:
    more = [f'... and {len(problems) - SHOWN:,} more'] if len(problems) > SHOWN else []
    raise UserError(f'{what} ({len(problems):,}):\n  ' + '\n  '.join([*problems[:SHOWN], *more]) + hint)


def listed(items: Iterable[object]) -> str:
  """'a', 'a and b' or 'a, b and c'."""
  *head, last = map(str, items)
  return f"{', '.join(head)} and {last}" if head else last
