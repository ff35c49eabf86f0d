"""The table of an evaluation's attribution maps: how well they agree with what, and which beat a constant picture."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from fer_jax.metrics.action_units import CLASS_FREE
from fer_jax.reports.formats import Column, Line, Table
from fer_jax.reports.words import mark

# The same picture for every face: what a map has to beat.
TRIVIAL = ('uniform', 'centred_gaussian', 'training_mean')


PUBLISHED = 'cosine as published'  # CAM-COS and ATT-COS.

# What maps are compared with: a title, the key of the number of faces, and columns: key, title, whether per cent.
GROUPS = (
    ('landmarks', 'count', (('cosine', 'cosine', False), ('pearson', 'Pearson', False))),
    ('action units', 'action_unit_count', (
        ('action_unit_cosine', 'cosine', False), ('action_unit_published_cosine', PUBLISHED, False),
        ('action_unit_pearson', 'Pearson', False),
        ('action_unit_contrast', 'contrast', False), ('action_unit_predicted_cosine', 'cosine, predicted', False),
        ('action_unit_pointing', 'pointing', True))),
    ('causal mask', 'causal_count', (
        ('mass_inside_causal_mask', 'mass', True), ('causal_auc', 'AUC', False),
        ('causal_pointing', 'pointing', True))))


def alignment_tables(result: Mapping[str, Any]) -> list[Table]:
  """A table of each group for which an evaluation has numbers, all with the same lines; older files lack some.

  ▲ and ▽ say whether a map is above all of ``TRIVIAL``, where that means something.
  """
  rows = result.get('alignment') or {}
  tables = []
  for group, count, possible in GROUPS:
    columns = [column for column in possible if any(row.get(column[0]) is not None for row in rows.values())]
    if columns:
      first = next(row for row in rows.values() if row.get(columns[0][0]) is not None)
      faces = f', {first[count]:,} faces' if first.get(count) is not None else ''
      lines = [_line(name, result, {title: _cell(rows, name, key, share) for key, title, share in columns})
               for name in rows]
      tables.append(Table(f'maps and {group}{faces}',
                          (Column('map', 'l'), *(Column(title, bar=True) for _, title, _ in columns)), tuple(lines),
                          tuple(_remarks(count, first))))
  if tables:
    constant = ', '.join(name.replace('_', ' ') for name in rows if name in TRIVIAL)
    legend = f'▲ above, ▽ not above the same picture for every face ({constant}).'
    tables[-1] = dataclasses.replace(tables[-1], notes=(*tables[-1].notes, legend))
  return tables


def best_map(result: Mapping[str, Any]) -> str:
  """One line on the map that agrees best with the landmarks and the constant picture that does; '' without both."""
  scores = {name: row['pearson'] for name, row in (result.get('alignment') or {}).items()
            if name != CLASS_FREE and row.get('pearson') is not None}
  constant = max((name for name in scores if name in TRIVIAL), key=scores.get, default=None)
  maps = [name for name in scores if name not in TRIVIAL]
  if not maps or not constant:
    return ''
  best = max(maps, key=scores.get)
  said = 'above' if scores[best] > scores[constant] else 'not above'
  return (f'maps and landmarks, Pearson: {best} {scores[best]:.3f}, the best of {len(maps)}, {said} the best constant '
          f'picture, {constant} {scores[constant]:.3f}').replace('_', ' ')


def by_class(result: Mapping[str, Any]) -> Table | None:
  """Cosines with action units by expression; None where there are none."""
  rows = {name: row['action_unit_cosine_by_class'] for name, row in (result.get('alignment') or {}).items()
          if row.get('action_unit_cosine_by_class')}
  classes = [name for name in result.get('classes', ()) if any(name in means for means in rows.values())]
  lines = [_line(name, result, {key: _text(means.get(key), False) for key in classes}) for name, means in rows.items()]
  return Table('Cosine with action units by expression', (Column('map', 'l'), *map(Column, classes)),
               tuple(lines)) if rows else None


def _line(name: str, result: Mapping[str, Any], cells: Mapping[str, str]) -> Line:
  return Line({'map': name.replace('_', ' ') + mark(result), **cells},
              style='trivial' if name in (*TRIVIAL, CLASS_FREE) else '')


def _cell(rows: Mapping[str, Any], name: str, key: str, share: bool) -> str:
  value = rows[name].get(key)
  bars = [rows[other][key] for other in TRIVIAL if rows.get(other, {}).get(key) is not None]
  if name in (*TRIVIAL, CLASS_FREE) or value is None or not bars:
    return _text(value, share)
  return _text(value, share) + (' ▲' if value > max(bars) else ' ▽')


def _text(value: float | None, share: bool) -> str:
  return '–' if value is None else f'{100 * value:.1f} %' if share else f'{value:.3f}'


def _remarks(count: str, row: Mapping[str, Any]) -> Iterator[str]:
  """Which faces a row leaves out, beside those without landmarks or action units."""
  faces = lambda count: f"{count:,} face{'s' * (count != 1)}"
  if count == 'action_unit_count' and (left := row.get('action_unit_predicted_left_out')):
    yield f"'cosine, predicted' is without {faces(left)} predicted as a class that has no action units."
  if count == 'causal_count' and (left := row.get('causal_left_out')):
    yield f'The causal mask is empty or full on {faces(left)} more.'
