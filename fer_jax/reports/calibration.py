"""What a run's temperature and threshold do: the tables of the console and the page, and the page's two pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fer_jax.metrics.calibration import BINS, TEMPERATURES
from fer_jax.reports import figures
from fer_jax.reports.formats import Column, Line, Table, show
from fer_jax.reports.words import interval, leaks, mark, percent, title, warnings

_MEASURES = (('nll', 'NLL, nats', '{:.3f}'), ('ece', f'ECE, {BINS} bins', '{:.2%}'), ('brier', 'Brier', '{:.3f}'))


def print_calibration(found: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
  """Prints what ``calibrate`` has found, the content of calibration.json, beside the evaluations that have it."""
  show('\n' + words(found), *warnings(leaks(found), remarks(found)), *tables(results))


def words(found: Mapping[str, Any]) -> str:
  """A temperature and its threshold in sentences."""
  ends = found['temperature_interval']
  between = f' (95 %: {ends[0]:.3f} to {ends[1]:.3f})' if ends else ''
  said = (f"temperature {found['temperature']:.3f}{between}, fitted on {found['count']:,} faces of {found['split']}; "
          'no answer changes.')
  if not (wanted := found['wanted']):
    return said
  (what, value), = wanted.items()
  aim = {'accuracy': 'are right in {} of cases or more, by the lower end of the 95 % interval on these faces',
         'coverage': 'are those of {} of these faces or more'}[what].format(percent(value))
  return f"{said} Below a probability of {found['threshold']:.4f} it abstains: the answers that are left {aim}."


def remarks(found: Mapping[str, Any]) -> list[str]:
  """What else to know of a calibration, as clauses."""
  low, high = TEMPERATURES
  return [f'the search ended at an end of what it looks through, {low:g} to {high:g}: the best temperature may be '
          'further out, or there is none'] * found['at_bound']


def fitted_on_these(result: Mapping[str, Any]) -> str:
  """Says that an evaluation's calibrated numbers are of the faces of the fit; '' where none of them is."""
  scores = result['calibration']
  if scores['overlap'] is None:
    return (f"the temperature was fitted on {scores['fitted_on']}, which is not there any more as it was: whether on "
            'these faces is not known')
  if not scores['overlap']:
    return ''
  which = 'these very faces' if scores['overlap'] == result['count'] else (
      f"{scores['overlap']:,} of these {result['count']:,} faces")
  return f'the temperature was fitted on {which}: the calibrated numbers are not those of new faces'


def line(result: Mapping[str, Any]) -> list[str]:
  """The calibrated numbers of an evaluation, for one screen; nothing where it has none."""
  if not (scores := result.get('calibration')):
    return []
  said = [f"at temperature {scores['temperature']:.3f}, fitted on {scores['count']:,} faces of {scores['fitted_on']}: "
          + '   '.join(f'{name} {_number(scores[key], form)}' for key, name, form in _MEASURES)]
  if given := scores.get('answered'):
    said.append(f"from a probability of {scores['threshold']:.4f} on {percent(given['coverage'])} of the faces get an "
                f"answer, {percent(given['accuracy'])} of them right (95 %: {interval(given['accuracy_interval'])})")
  return said + [f'Note: {words}.' for words in filter(None, [fitted_on_these(result)])]


def tables(results: Sequence[Mapping[str, Any]]) -> list[Table]:
  """Numbers before and after for the evaluations that have any, and what their thresholds leave."""
  results = [result for result in results if result.get('calibration')]
  before, given = [], []
  for result in results:
    scores, notes = result['calibration'], [words[0].upper() + words[1:] + '.'
                                            for words in filter(None, [fitted_on_these(result)])]
    name = {'split': title(result) + mark(result), 'faces': f"{result['count']:,}"}
    before.append(Line(name | {column: f"{_number(scores['before'][key], form)} → {_number(scores[key], form)}"
                               for key, column, form in _MEASURES}, tuple(notes)))
    if answered := scores.get('answered'):
      given.append(Line(name | {
          'threshold': f"{scores['threshold']:.4f}", 'get an answer': percent(answered['coverage']),
          'right of these': percent(answered['accuracy']), '95 %': interval(answered['accuracy_interval']),
          'right of all': percent(result['accuracy'])}, tuple(notes)))
  columns = lambda *names: (Column('split', 'l'), *map(Column, names))
  made = [Table('before → after calibration', columns('faces', *(column for _, column, _ in _MEASURES)), tuple(before)),
          Table('with the right to abstain', columns('faces', 'threshold', 'get an answer', 'right of these', '95 %',
                                                     'right of all'), tuple(given))]
  return [table for table in made if table.lines]


def section(found: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """What the page says and draws of calibration.json and of the evaluations; {} where none has calibrated numbers."""
  drawn = [result for result in results if (result.get('calibration') or {}).get('reliability')]
  if not drawn:
    return {}
  return {
      'words': words(found) if found else '', 'leaks': leaks(found), 'remarks': remarks(found) if found else [],
      'tables': tables(results),
      'charts': [{'title': title(result), 'leaky': bool(leaks(result)), 'overlap': fitted_on_these(result),
                  'threshold': result['calibration']['threshold'], 'area': result['calibration']['aurc'],
                  'reliability': reliability(f"reliability {result['stem']}", result['calibration']['reliability']),
                  'risk': risk_coverage(f"risk and coverage {result['stem']}", result['calibration'])}
                 for result in drawn]}


def reliability(name: str, bins: Mapping[str, Sequence[Mapping[str, Any]]]) -> Markup:
  """Draws the accuracy of each bin against its mean confidence, before and after, with Wilson 95 % intervals.

  On the dashed diagonal probabilities mean what they say; below it the network is too sure. A marker is as large as its
  bin has faces.
  """
  with figures.canvas(4.2, 3.4) as (figure, axes):
    axes.plot([0, 100], [0, 100], color=figures.THEME['muted'], linewidth=1.2, linestyle='--')
    for when, colour, marker in (('before', figures.THEME['warm'], 's'), ('after', figures.THEME['accent'], 'o')):
      said, right = (100 * np.array([one[key] for one in bins[when]]) for key in ('confidence', 'accuracy'))
      ends = 100 * np.array([one['accuracy_interval'] for one in bins[when]])
      size = np.array([one['count'] for one in bins[when]])
      axes.vlines(said, *ends.T, color=colour, linewidth=1.2, alpha=0.45)
      axes.plot(said, right, color=colour, linewidth=0.8, alpha=0.6)
      axes.scatter(said, right, 5 + 60 * size / size.max(), color=colour, marker=marker, linewidth=0, zorder=3,
                   clip_on=False)
    axes.set(xlim=(0, 100), ylim=(0, 100), xlabel='probability of the answer', ylabel='right')
    for axis in (axes.xaxis, axes.yaxis):
      axis.set_major_locator(MaxNLocator(5))
      axis.set_major_formatter(PercentFormatter(decimals=0))
    return figures.svg(figure, name)


def risk_coverage(name: str, scores: Mapping[str, Any]) -> Markup:
  """Draws the share of wrong answers against the share of faces that get one, with its interval and the threshold."""
  curve = {key: 100 * np.array(values) for key, values in scores['risk_coverage'].items()}
  with figures.canvas(4.2, 3.4) as (figure, axes):
    axes.fill_between(curve['coverage'], curve['low'], curve['high'], color=figures.THEME['accent'], alpha=0.18,
                      linewidth=0)
    axes.plot(curve['coverage'], curve['risk'], color=figures.THEME['accent'], linewidth=1.6)
    if (given := scores.get('answered')) and given['count']:
      at, risk = 100 * given['coverage'], 100 * (1 - given['accuracy'])
      axes.axvline(at, color=figures.THEME['ink'], linewidth=1.2, linestyle='--')
      axes.plot(at, risk, color=figures.THEME['ink'], marker='o', markersize=5)
    # Of the most confident few nobody knows much: their intervals would make the rest of the picture flat.
    axes.set(xlim=(0, 100), ylim=(0, min(100, max(1.25 * curve['risk'].max(), 2))), xlabel='faces that get an answer',
             ylabel='wrong of these')
    for axis in (axes.xaxis, axes.yaxis):
      axis.set_major_locator(MaxNLocator(5))
      axis.set_major_formatter('{x:g}%')
    axes.grid(False, axis='x')
    return figures.svg(figure, name)


def _number(value: float | None, form: str) -> str:
  return '–' if value is None else form.format(value).replace('%', ' %')
