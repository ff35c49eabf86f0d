"""What the commands print: lines and tables on the console of process 0, and what to beware of beside the numbers."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer_jax.runtime import cluster

LEAKY = ' [bold red]LEAKY[/]'


def console() -> Console:
  """The standard output of process 0; of the others nothing is seen."""
  return Console(quiet=not cluster.is_main(), highlight=False)


def table(header: Iterable[str], rows: Iterable[tuple[Sequence[str], bool] | None], title: str | None = None) -> Table:
  """A table for the console.

  Args:
    header: names of its columns, which may hold markup.
    rows: cells of plain text, and whether the row owes nothing to training, which is drawn dim; None is a rule.
    title: above it, in plain text.
  """
  drawn = Table(*header, title=title and escape(title), title_justify='left')
  for row in rows:
    if row is None:
      drawn.add_section()
    else:
      drawn.add_row(*map(escape, row[0]), style='dim' if row[1] else None)
  return drawn


def warn(out: Console, leaks: Sequence[str], remarks: Iterable[str] = (), about: str = '') -> None:
  """Prints how numbers leak, if they do, and what else to know of them; ``about`` names whose they are."""
  if leaks:
    out.print(escape(f"Leaky: {about}{'; '.join(leaks)}. Compare this with no honest result."), style='red')
  for words in remarks:
    out.print(escape(f'Note: {about}{words}.'), style='yellow')
