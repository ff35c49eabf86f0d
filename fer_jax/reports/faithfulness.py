"""Faithfulness of a run's maps: the tables, and what the page says and draws."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fer_jax.reports import figures
from fer_jax.reports.formats import Column, Line, Table, show
from fer_jax.reports.words import leaks, mark, remarks, warnings

# Said wherever the numbers are shown.
CURVES_CAVEAT = (
    'Faces with pixels gone or blurred are unlike any that the network has learnt from: a curve also shows how it '
    'fails there, not only what it used. A random order takes scattered pixels and a map connected places, which '
    'networks bear differently; the centred Gaussian, connected too, is the closer comparison. Areas compare maps of '
    'one network on the same faces; between networks they also differ by how sure and how brittle the answers are.')
RANDOM_CAVEAT = (
    'A correlation near 1 says that the map would look the same had the network not learnt what those parameters hold; '
    'one near 0 does not say that the map is right. How alike the maps of different faces are anyway stands beside it.')

_DASHES = {'uniform': ':', 'centred_gaussian': '--', 'landmarks': '-.'}


# Curves, which of two areas is better, and where their mean probability starts and ends.
_KINDS = (('deletion', 'less', 'whole', 'deleted'), ('insertion', 'more', 'blurred', 'whole'))


def print_faithfulness(result: Mapping[str, Any]) -> None:
  """Prints the content of explanations/SPLIT.json: the areas of every map, and what random parameters change."""
  protocol = result['protocol']
  show(f"\n{protocol['dataset']} {protocol['split']}: are the maps faithful?{mark(result)}", _words(result),
       *warnings(leaks(result), _remarks(result)), *(area_table(result, *kind) for kind in _KINDS), CURVES_CAVEAT,
       random_table(result), RANDOM_CAVEAT)


def _words(result: Mapping[str, Any]) -> str:
  """What was measured, in sentences."""
  protocol = result['protocol']
  height, width = protocol['pixels']
  return (f"{protocol['faces']:,} of {protocol['of']:,} faces, evenly spaced, at step {result['step']:,}; {width} x "
          f"{height} pixels in {protocol['steps']} portions. Measured is the probability of "
          f"{protocol['probability_of']}. Deletion puts {protocol['deletion_to']} in the place of a pixel, insertion "
          f"brings pixels back into {protocol['insertion_from']}. The intervals cover the choice of faces, not of the "
          'seed; those of the differences know that the faces are the same.')


def _remarks(result: Mapping[str, Any]) -> list[str]:
  without = 'landmarks' in result['baselines'] and result['without_landmarks']
  return [*remarks(result), *[f'{without:,} of the faces have no landmarks, and a random order in their place'] *
          bool(without)]


def area_table(result: Mapping[str, Any], kind: str, better: str, start: str, end: str) -> Table:
  """The areas of one of ``_KINDS``: maps, then baselines; ▲ and ▽ where a gain's interval leaves out 0."""
  ends = lambda interval, sign='': '–' if interval is None else f'{interval[0]:{sign}.3f} to {interval[1]:{sign}.3f}'
  bars = {bar: f'better than {_name(bar)} by (95 %)' for bar in next(iter(result['maps'].values()))[kind]['gain']}
  lines = []
  for group in ('maps', 'baselines'):
    for name, measured in result[group].items():
      curve, cells = measured[kind], {}
      for bar, gain in curve['gain'].items():
        low, high = gain['interval'] or (0, 0)
        beats = ' ▲' if low > 0 else ' ▽' if high < 0 else ''
        cells[bars[bar]] = f"{gain['value']:+.3f} ({ends(gain['interval'], '+')}){beats}"
      lines.append(Line({'map': _name(name) + mark(result), 'area': f"{curve['area']:.3f}",
                         '95 %': ends(curve['interval']), **cells}, style='trivial' if group == 'baselines' else ''))
  note = (f"The mean probability goes from {result['ends'][start]:.3f} to {result['ends'][end]:.3f}. ▲, ▽: the "
          'interval of the difference lies above, below 0.')
  return Table(f'{kind}, {better} is better', (Column('map', 'l'), Column('area', bar=True), Column('95 %'),
                                               *map(Column, bars.values())), tuple(lines), (note,))


def random_table(result: Mapping[str, Any]) -> Table:
  """What random parameters change, a line for each depth; those without a random parameter are trivial."""
  signed = lambda value: '–' if value is None else f'{value:.2f}'
  lines = []
  for row in result['randomised']:
    name = row['random'] if row['depth'] < 2 else f"and {row['random']}"
    cells = {'random': name.replace('another face', 'nothing, map of another face')}
    for which in result['maps']:
      found = row['maps'][which]
      low, high = found['pearson_range'] or (None, None)
      draws = '' if low == high else f' ({low:.2f} to {high:.2f})'
      cells[_name(which)] = f"{signed(found['pearson'])}{draws}\nSpearman {signed(found['spearman'])}"
    lines.append(Line(cells, style='' if row['depth'] else 'trivial'))
  note = (f"Pearson's correlation with the trained network's map of the same face, over the pixels of a map, mean "
          f"over faces and {len(result['protocol']['seeds_of_random_parameters'])} draws (in brackets the lowest and "
          "the highest of them), below it Spearman's.")
  return Table('random parameters' + mark(result), (Column('random', 'l'), *(
      Column(_name(which), bar=True) for which in result['maps'])), tuple(lines), (note,))


def sections(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
  """What the page says and draws of the contents of explanations/SPLIT.json, by the stem of their files."""
  return [result | {
      'split': result['protocol']['split'], 'leaks': leaks(result), 'words': _words(result),
      'remarks': _remarks(result), 'random': random_table(result),
      'charts': [{'kind': kind, 'better': better, 'table': area_table(result, kind, better, *ends),
                  'drawing': _curves(f'{kind} {stem}', result, kind)} for kind, better, *ends in _KINDS]}
          for stem, result in results.items()]


def _curves(name: str, result: Mapping[str, Any], kind: str) -> Markup:
  """Draws the mean curve of every map, and of the baselines in grey and dashed, against the share of the pixels."""
  colours = [key for key in figures.THEME if key.startswith('row-')]
  shares = [100 * share for share in result['shares']]
  with figures.canvas(5.4, 3.2) as (figure, axes):
    for i, (label, measured) in enumerate(result['maps'].items()):
      axes.plot(shares, [100 * p for p in measured[kind]['curve']], color=figures.THEME[colours[i % len(colours)]],
                linewidth=1.8, linestyle='-' if i < len(colours) else (0, (5, 1)), label=_name(label))
    for label, measured in result['baselines'].items():
      axes.plot(shares, [100 * p for p in measured[kind]['curve']], color=figures.THEME['muted'], linewidth=1.6,
                linestyle=_DASHES.get(label, '--'), label=_name(label))
    axes.set(xlim=(0, 100), xlabel='pixels gone' if kind == 'deletion' else 'pixels back')
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    for axis in (axes.xaxis, axes.yaxis):
      axis.set_major_formatter(PercentFormatter(decimals=0))
    figures.below(figure)
    return figures.svg(figure, name)


def _name(key: str) -> str:
  return 'random order' if key == 'uniform' else key.replace('_', ' ')
