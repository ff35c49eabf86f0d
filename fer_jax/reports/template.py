"""What the HTML pages share: filters, values of JSON files in words, and the writing of a page."""

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import jinja2

from fer_jax.reports.table import interval, percent
from fer_jax.runtime import storage

SELECT = {
    'last': 'the parameters after the last step',
    'ema': 'the moving average of the parameters after the last step',
    'holdout': 'the step that did best on held-out training data',
    'best_on_test': 'the step that did best on these very images',
}


def write(path: str | os.PathLike[str], template: str, contents: Mapping[str, Any]) -> None:
  """Writes a page: the file ``template`` of this folder, which extends base.html, filled with ``contents``.

  Raises:
    UserError: it cannot be written.
  """
  environment = jinja2.Environment(
      loader=jinja2.PackageLoader('fer_jax.reports', '.'), autoescape=True, undefined=jinja2.StrictUndefined,
      trim_blocks=True, lstrip_blocks=True)
  environment.filters |= {'percent': percent, 'interval': interval, 'brief': brief}
  written = datetime.now().strftime('%Y-%m-%d %H:%M')
  storage.write_text(path, environment.get_template(template).render(contents, written=written))


def brief(value: Any) -> str:
  """A value of a JSON file as a reader would write it."""
  if isinstance(value, bool) or value is None:
    return {True: 'yes', False: 'no', None: 'none'}[value]
  if isinstance(value, list):
    return ', '.join(f'({brief(v)})' if isinstance(v, list) else brief(v) for v in value) or 'none'
  if isinstance(value, Mapping):
    return ', '.join(f'{key} {brief(v)}' for key, v in value.items()) or 'none'
  return f'{value:,}' if isinstance(value, int) and value >= 10_000 else str(value)
