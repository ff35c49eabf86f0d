"""Prints what several seeds of one config have come to, beside each other."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer_jax.metrics.intervals import t_interval
from fer_jax.reports.table import leaks, title
from fer_jax.runtime import cluster

# Key of an evaluation, title, factor and decimals of what is printed.
_MEASURES = (('accuracy', 'accuracy, %', 100, 2), ('mean_class_accuracy', 'mean class, %', 100, 2),
             ('macro_f1', 'macro F1, %', 100, 2), ('nll', 'NLL, nats', 1, 3), ('ece', 'ECE, %', 100, 2))


def print_seeds(results: Mapping[int, Mapping[str, Any]], data_seed: int | None, console: Console | None = None
                ) -> None:
  """Prints a row for each seed, and their mean, standard deviation and Student's t 95 % interval of the mean.

  Args:
    results: {seed: its evaluation of the test split}, two or more.
    data_seed: of the order and augmentation that all of them saw, or None where each had its own.
    console: where to; if None, the standard output of process 0.
  """
  console = console or Console(quiet=not cluster.is_main())
  first = next(iter(results.values()))
  reasons = leaks(first)
  mark = '  [bold red]LEAKY[/]' if reasons else ''
  measures = {name: [scale * result[key] for result in results.values()] for key, name, scale, _ in _MEASURES
              if all(result.get(key) is not None for result in results.values())}
  decimals = {name: places for _, name, _, places in _MEASURES}

  def row(what: str, text: Callable[[str, list[float]], str]) -> None:
    table.add_row(what, *(text(name, values) for name, values in measures.items()))

  console.print(f"\n[bold]{first['protocol']['dataset']}[/] {escape(title(first))}: {len(results)} seeds, "
                f"{first['count']:,} faces{mark}", highlight=False)
  table = Table('seed', *measures)
  for i, seed in enumerate(results):
    row(str(seed), lambda name, values, i=i: f'{values[i]:.{decimals[name]}f}')
  table.add_section()
  row('mean', lambda name, values: f'{np.mean(values):.{decimals[name]}f}')
  row('sd', lambda name, values: f'{np.std(values, ddof=1):.{decimals[name]}f}')
  row('95 % from', lambda name, values: f'{t_interval(values).low:.{decimals[name]}f}')  # Lines of 80 are enough.
  row('95 % to', lambda name, values: f'{t_interval(values).high:.{decimals[name]}f}')
  console.print(table)
  covers = ('all that is random in training' if data_seed is None else 'what is random in training but order and '
            f'augmentation, which the seeds shared (data.seed={data_seed})')
  console.print(f'The interval of the mean covers {covers}; it does not cover which faces were tested.',
                highlight=False)
  if reasons:
    console.print(f"[red]Leaky: {'; '.join(reasons)}. Compare this with no honest result.[/]", highlight=False)
