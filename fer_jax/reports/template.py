"""What the HTML pages share: filters, and the writing of a page."""

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import jinja2

from fer_jax.reports.words import brief, interval, percent
from fer_jax.runtime import storage

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader('fer_jax.reports', '.'), autoescape=True, undefined=jinja2.StrictUndefined,
    trim_blocks=True, lstrip_blocks=True)
ENVIRONMENT.filters |= {'percent': percent, 'interval': interval, 'brief': brief}


def write(path: str | os.PathLike[str], template: str, contents: Mapping[str, Any]) -> None:
  """Writes a page: the file ``template`` of this folder, which extends base.html, filled with ``contents``.

  Raises:
    UserError: it cannot be written.
  """
  written = datetime.now().strftime('%Y-%m-%d %H:%M')
  storage.write_text(path, ENVIRONMENT.get_template(template).render(contents, written=written))
