"""Faithfulness of a run's maps: the console tables, and what the page says and draws."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator, PercentFormatter
from rich.markup import escape

from fer_jax.reports import figures
from fer_jax.reports.console import LEAKY, console, table, warn
from fer_jax.reports.words import leaks, remarks

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
  out, protocol, reasons, ends = console(), result['protocol'], leaks(result), result['ends']
  mark = LEAKY if reasons else ''
  out.print(f"\n[bold]{protocol['dataset']}[/] {escape(protocol['split'])}: are the maps faithful?{mark}")
  out.print(escape(_words(result)))
  warn(out, reasons, _remarks(result))
  for kind, better, start, end in _KINDS:
    rows = area_rows(result, kind)
    out.print(table((kind + mark, 'area', '95 %', *(f'better than {name} by' for name in rows[0]['gains'])), (
        ((row['name'], row['area'], row['interval'], *row['gains'].values()), row['trivial']) for row in rows)))
    out.print(f'{kind}: {better} is better; the mean probability goes from {ends[start]:.3f} to {ends[end]:.3f}.')
  out.print(CURVES_CAVEAT)
  names, rows = random_rows(result)
  cells = lambda row: (f"{cell['pearson']} {cell['range']}\n{cell['spearman']}" for cell in row['cells'])
  out.print(table(('random parameters' + mark, *map(escape, names)), (
      ((row['name'], *cells(row)), row['trivial']) for row in rows)))
  out.print("Pearson's correlation with the trained network's map of the same face (from, to: draws of random "
            f"parameters), below it Spearman's. {RANDOM_CAVEAT}")


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


def area_rows(result: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
  """The table of 'deletion' or 'insertion': maps, then baselines.

  Returns:
    Rows of name, trivial, value (the area), area and interval as text, gains {baseline: text} and beats {baseline: True
    or False where the interval of the gain lies above or below 0, None where it does not}.
  """
  ends = lambda interval, sign='': '–' if interval is None else f'{interval[0]:{sign}.3f} to {interval[1]:{sign}.3f}'
  bars = list(next(iter(result['maps'].values()))[kind]['gain'])
  rows = []
  for group in ('maps', 'baselines'):
    for name, measured in result[group].items():
      curve, gains, beats = measured[kind], {}, {}
      for bar in bars:
        gain = curve['gain'].get(bar)
        gains[_name(bar)] = '' if gain is None else f"{gain['value']:+.3f} ({ends(gain['interval'], '+')})"
        low, high = (gain and gain['interval']) or (0, 0)
        beats[_name(bar)] = True if low > 0 else False if high < 0 else None
      rows.append({'name': _name(name), 'trivial': group == 'baselines', 'value': curve['area'],
                   'area': f"{curve['area']:.3f}", 'interval': ends(curve['interval']), 'gains': gains, 'beats': beats})
  return rows


def random_rows(result: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
  """The table of random parameters: names of its columns, and a row for each depth.

  Returns:
    The maps; and rows of name, trivial (no parameter is random) and cells of text: pearson, range (of Pearson over
    draws, '' where they are one), spearman, and value, Pearson's or 0.
  """
  signed = lambda value: '–' if value is None else f'{value:.2f}'
  rows = []
  for row in result['randomised']:
    name = row['random'] if row['depth'] < 2 else f"and {row['random']}"
    cells = []
    for found in map(row['maps'].get, result['maps']):
      low, high = found['pearson_range'] or (None, None)
      cells.append({'pearson': signed(found['pearson']), 'spearman': signed(found['spearman']),
                    'range': '' if low == high else f'({low:.2f} to {high:.2f})', 'value': found['pearson'] or 0.0})
    rows.append({'name': name.replace('another face', 'nothing, map of another face'), 'trivial': not row['depth'],
                 'cells': cells})
  return list(map(_name, result['maps'])), rows


def sections(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
  """What the page says and draws of the contents of explanations/SPLIT.json, by the stem of their files."""
  made = []
  for stem, result in results.items():
    names, rows = random_rows(result)
    made.append(result | {
        'split': result['protocol']['split'], 'leaks': leaks(result), 'words': _words(result),
        'remarks': _remarks(result), 'map_names': names, 'random_rows': rows,
        'charts': [{'kind': kind, 'better': better, 'rows': area_rows(result, kind),
                    'drawing': _curves(f'{kind} {stem}', result, kind)}
                   for kind, better, *_ in _KINDS]})
  return made


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
