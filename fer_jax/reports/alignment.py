"""The table of an evaluation's attribution maps: how well they agree with what, and which beat a constant picture."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fer_jax.metrics.action_units import CLASS_FREE

# The same picture for every face: what a map has to beat.
TRIVIAL = ('uniform', 'centred_gaussian', 'training_mean')


class Group(NamedTuple):
  """What maps are compared with: a title, the key of the number of faces, and columns: key, title, whether per cent."""

  title: str
  count: str
  columns: tuple[tuple[str, str, bool], ...]


GROUPS = (
    Group('landmarks', 'count', (('cosine', 'cosine', False), ('pearson', 'Pearson', False))),
    Group('action units', 'action_unit_count', (
        ('action_unit_cosine', 'cosine', False), ('action_unit_pearson', 'Pearson', False),
        ('action_unit_contrast', 'contrast', False), ('action_unit_predicted_cosine', 'cosine, predicted', False),
        ('action_unit_pointing', 'pointing', True))),
    Group('causal mask', 'causal_count', (
        ('mass_inside_causal_mask', 'mass', True), ('causal_auc', 'AUC', False),
        ('causal_pointing', 'pointing', True))))


def alignment_groups(result: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The groups of columns for which an evaluation has numbers; older files lack some.

  Returns:
    Groups of title, faces (their number, or None), columns (titles), remark, and rows: all the same in each group, of
    key, name, trivial (no map of the network) and cells. A cell is text, width (in per cent, for a bar) and beats:
    whether the map is above all of ``TRIVIAL``, None where that means nothing.
  """
  table = result.get('alignment') or {}
  groups = []
  for group in GROUPS:
    columns = [column for column in group.columns if any(row.get(column[0]) is not None for row in table.values())]
    if columns:
      first = next(row for row in table.values() if row.get(columns[0][0]) is not None)
      rows = [{'key': name, 'name': name.replace('_', ' '), 'trivial': name in (*TRIVIAL, CLASS_FREE),
               'cells': [_cell(table, name, *column) for column in columns]} for name in table]
      groups.append({'title': group.title, 'faces': first.get(group.count), 'rows': rows,
                     'columns': [title for _, title, _ in columns], 'remark': _remark(group.count, first)})
  return groups


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


def by_class(result: Mapping[str, Any]) -> dict[str, Any]:
  """Cosines with action units by expression: classes, and rows of name, trivial and cells; empty where there are none.
  """
  table = {name: row['action_unit_cosine_by_class'] for name, row in (result.get('alignment') or {}).items()
           if row.get('action_unit_cosine_by_class')}
  classes = [name for name in result.get('classes', ()) if any(name in means for means in table.values())]
  return {'classes': classes, 'rows': [
      {'name': name.replace('_', ' '), 'trivial': name in (*TRIVIAL, CLASS_FREE),
       'cells': [_text(means.get(key), False) for key in classes]} for name, means in table.items()]} if table else {}


def _cell(table: Mapping[str, Any], name: str, key: str, title: str, share: bool) -> dict[str, Any]:
  value = table[name].get(key)
  bars = [table[other][key] for other in TRIVIAL if table.get(other, {}).get(key) is not None]
  beats = None if name in (*TRIVIAL, CLASS_FREE) or value is None or not bars else value > max(bars)
  return {'text': _text(value, share), 'width': 100 * min(max(value or 0, 0), 1), 'beats': beats}


def _text(value: float | None, share: bool) -> str:
  return '–' if value is None else f'{100 * value:.1f} %' if share else f'{value:.3f}'


def _remark(count: str, row: Mapping[str, Any]) -> str:
  """Says which faces a row leaves out, beside those without landmarks or action units."""
  faces = lambda count: f"{count:,} face{'s' * (count != 1)}"
  if count == 'action_unit_count' and (left := row.get('action_unit_predicted_left_out')):
    return f"'cosine, predicted' is without {faces(left)} predicted as a class that has no action units."
  if count == 'causal_count' and (left := row.get('causal_left_out')):
    return f'The causal mask is empty or full on {faces(left)} more.'
  return ''
