"""What the HTML pages share: filters, and the writing of a page."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import jinja2
from etils import epath
from markupsafe import Markup, escape

from fer_jax.reports.words import brief, interval, percent
from fer_jax.runtime import cluster, storage

_MARKS = {'LEAKY': 'leaky-mark', '▲': 'right', '▽': 'wrong'}


def marked(text: str) -> Markup:
  """The text of a cell; a mark at the end of its first line is coloured, and the other lines are smaller."""
  first, *others = text.split('\n')
  words, space, last = first.rpartition(' ')
  if last in _MARKS:
    first = Markup('{}{}<span class="{}">{}</span>').format(words, space, _MARKS[last], last)
  return escape(first) + Markup('').join(Markup('<div class="remark">{}</div>').format(line) for line in others)


def share(text: str) -> float:
  """How long the bar of a cell is, in per cent: of '81.2 %', or of '0.812'; 0 of what is below 0 or no number."""
  found = re.match(r'([\d.]+)( %)?', text)
  return min(float(found[1]) * (1 if found[2] else 100), 100) if found else 0.0


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader('fer_jax.reports', '.'), autoescape=True, undefined=jinja2.StrictUndefined,
    trim_blocks=True, lstrip_blocks=True)
ENVIRONMENT.filters |= {'percent': percent, 'interval': interval, 'brief': brief, 'marked': marked, 'share': share}


def write(path: epath.Path, template: str, contents: Callable[[], Mapping[str, Any]]) -> epath.Path:
  """Writes a page, on process 0: the file ``template`` of this folder filled with ``contents``; returns its path.

  Raises a UserError where it cannot be written.
  """
  if cluster.is_main():
    written = datetime.now().strftime('%Y-%m-%d %H:%M')
    storage.write_text(path, ENVIRONMENT.get_template(template).render(contents(), written=written))
  return path
