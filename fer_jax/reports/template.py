"""What the HTML pages share: filters, and the writing of a page."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import jinja2
from etils import epath

from fer_jax.reports.words import brief, interval, percent
from fer_jax.runtime import cluster, storage

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader('fer_jax.reports', '.'), autoescape=True, undefined=jinja2.StrictUndefined,
    trim_blocks=True, lstrip_blocks=True)
ENVIRONMENT.filters |= {'percent': percent, 'interval': interval, 'brief': brief}


def write(path: epath.Path, template: str, contents: Callable[[], Mapping[str, Any]]) -> epath.Path:
  """Writes a page, on process 0: the file ``template`` of this folder filled with ``contents``; returns its path.

  Raises:
    UserError: it cannot be written.
  """
  if cluster.is_main():
    written = datetime.now().strftime('%Y-%m-%d %H:%M')
    storage.write_text(path, ENVIRONMENT.get_template(template).render(contents(), written=written))
  return path
