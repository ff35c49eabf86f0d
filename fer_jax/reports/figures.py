"""Draws a run's curves, confusions, recalls and few-shot curves as inline SVG in the page's light or dark colours.

Figures are drawn in the colours of ``THEME``; ``svg`` then swaps each for the CSS variable of its name. All functions
return an ``<svg>`` element; the name that they take marks the ids inside it.
"""

import contextlib
import html
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator, NullLocator, PercentFormatter

from fer_jax.metrics.confusion import recall
from fer_jax.metrics.intervals import wilson

THEME = {
    'ink': '#1c2333', 'muted': '#667083', 'line': '#e3e6ec', 'card': '#fffffe', 'accent': '#3556c8', 'warm': '#d9541e',
    'bad': '#c02b2b',
    # Rows of a table, the first in a neutral colour. With any kind of colour blindness each pair of them differs by at
    # least 18 (CIE 1976, simulated after Machado et al., 2009), in the light theme and in the dark one.
    'row-0': '#1c2332', 'row-1': '#2762cd', 'row-2': '#ac2d0e', 'row-3': '#c18a00', 'row-4': '#5509d8',
    'row-5': '#005a41', 'row-6': '#ab398c', 'row-7': '#3e9dd2',
}

_POINTS = 240  # A curve has at most this many; longer ones are averaged and shown with the range they came from.
_STYLE = {
    'svg.fonttype': 'none', 'font.size': 10, 'axes.edgecolor': THEME['line'], 'axes.labelcolor': THEME['muted'],
    'xtick.color': THEME['line'], 'ytick.color': THEME['line'], 'xtick.labelcolor': THEME['muted'],
    'ytick.labelcolor': THEME['muted'], 'text.color': THEME['ink'], 'axes.spines.top': False,
    'axes.spines.right': False, 'axes.axisbelow': True, 'axes.grid': True, 'grid.color': THEME['line'],
    'grid.linewidth': 0.8, 'text.parse_math': False,
}


def curve(name: str, train: tuple[Sequence[float], Sequence[float]],
          valid: tuple[Sequence[float], Sequence[float]]) -> Markup:
  """Draws one scalar against the step, under the name that it has in the metrics file.

  ``train`` (steps, values) is a line, averaged in blocks where there are many, with the blocks' range behind it;
  ``valid`` (steps, values) are points joined by a line. Either may be empty.
  """
  with canvas(4.2, 2.3) as (figure, axes):
    steps, values = (np.asarray(a, np.float64) for a in train)
    if len(steps):
      blocks = np.array_split(np.arange(len(steps)), min(len(steps), _POINTS))
      middle = [steps[b].mean() for b in blocks]
      axes.fill_between(middle, [values[b].min() for b in blocks], [values[b].max() for b in blocks],
                        color=THEME['accent'], alpha=0.18, linewidth=0)
      axes.plot(middle, [values[b].mean() for b in blocks], color=THEME['accent'], linewidth=1.6)
    axes.plot(*valid, color=THEME['warm'], linewidth=1.6, marker='o', markersize=3.5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=''))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(False, axis='x')
    axes.margins(x=0.02)
    return svg(figure, name)


def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], name: str = 'confusion', small: bool = False
                     ) -> Markup:
  """Draws a (K, K) confusion matrix of counts, rows = true classes, shaded by shares; a small one without counts."""
  confusion = np.asarray(confusion)
  counts = confusion.sum(axis=1, keepdims=True)
  shares = np.divide(confusion, counts, out=np.zeros(confusion.shape), where=counts > 0)
  k = len(classes)
  with canvas(*((1.0 + 0.36 * k, 0.8 + 0.34 * k) if small else (1.3 + 0.68 * k, 1.0 + 0.6 * k))) as (figure, axes):
    for (i, j), share in np.ndenumerate(shares):
      colour = THEME['accent'] if i == j else THEME['warm']
      for shade, alpha in ((THEME['line'], 0.35), (colour, share)):
        axes.add_patch(Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, facecolor=shade, alpha=alpha))
      text = THEME['card'] if share > 0.5 else THEME['ink']
      if confusion[i, j]:
        if small:
          axes.text(j, i, f'{100 * share:.0f}', ha='center', va='center', color=text, fontsize=9)
          continue
        axes.text(j, i - 0.1, f'{100 * share:.0f}%', ha='center', va='center', color=text, fontsize=10)
        axes.text(j, i + 0.22, confusion[i, j], ha='center', va='center', color=text, fontsize=7, alpha=0.75)
    axes.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), xticks=range(k), yticks=range(k), yticklabels=classes,
             xlabel='predicted', ylabel='true')
    axes.set_xticklabels(classes, rotation=35, ha='right', rotation_mode='anchor')
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return svg(figure, name)


def class_recall(confusion: np.ndarray, classes: Sequence[str]) -> Markup:
  """Draws the recall of each class of a (K, K) confusion matrix with its Wilson 95 % interval; absent ones say so."""
  confusion = np.asarray(confusion)
  k, rates, counts = len(classes), recall(confusion), confusion.sum(axis=1)
  with canvas(5.4, 0.8 + 0.42 * k) as (figure, axes):
    for i, (rate, count) in enumerate(zip(rates, counts, strict=True)):
      axes.barh(i, 100, height=0.62, color=THEME['line'], alpha=0.45)
      if not count:
        axes.text(2, i, 'no examples', va='center', color=THEME['muted'], fontsize=9)
        continue
      low, high = wilson(int(confusion[i, i]), int(count))
      axes.barh(i, 100 * rate, height=0.62, color=THEME['accent'], alpha=0.85)
      axes.plot([100 * low, 100 * high], [i, i], color=THEME['ink'], linewidth=1.4, marker='|', markersize=6)
      axes.text(103, i, f'{100 * rate:.1f}%', va='center', fontsize=10)
      axes.text(138, i, f'n = {count}', va='center', ha='right', color=THEME['muted'], fontsize=8)
    axes.set(xlim=(0, 138), ylim=(k - 0.5, -0.5), yticks=range(k), yticklabels=classes, xticks=range(0, 101, 25),
             xticklabels=[f'{t}%' for t in range(0, 101, 25)])
    axes.tick_params(length=0)
    axes.tick_params(axis='y', labelcolor=THEME['ink'])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return svg(figure, 'recall')


def few_shot(name: str, points: Sequence[Mapping[str, Any]], levels: Mapping[str, float]) -> Markup:
  """Draws accuracy against the number of labelled examples of each class, one line for each kind of features.

  ``points`` have features, shots >= 1, accuracy in [0, 1] and sd, the half width of the band behind the line, or None;
  ``levels`` are accuracies to compare with, by name, as dashed lines from side to side.
  """
  colours = {'this network': THEME['accent'], 'untrained network': THEME['muted'], 'majority class': THEME['muted']}
  spare = itertools.cycle((THEME['warm'], THEME['ink']))
  with canvas(5.4, 3.2) as (figure, axes):
    for features in dict.fromkeys(point['features'] for point in points):
      line = sorted((point['shots'], point['accuracy'], point['sd'] or 0) for point in points
                    if point['features'] == features)
      shots, accuracy, sd = np.array(line).T
      colour = colours.get(features) or next(spare)
      if sd.any():
        axes.fill_between(shots, 100 * np.maximum(accuracy - sd, 0), 100 * np.minimum(accuracy + sd, 1), color=colour,
                          alpha=0.18, linewidth=0)
      axes.plot(shots, 100 * accuracy, color=colour, linewidth=1.6, marker='o', markersize=3.5, label=features)
    for label, level in levels.items():
      axes.axhline(100 * level, color=colours.get(label, THEME['accent']), linewidth=1.2, linestyle='--', label=label)
    axes.set(xscale='log', xlabel='labelled faces of each class')
    ticks = sorted({point['shots'] for point in points})
    axes.set_xticks(ticks, [f'{tick:,}' for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.grid(False, axis='x')
    below(figure)
    return svg(figure, name)


def below(figure: Figure) -> None:
  """Puts the legend below a chart."""
  figure.legend(loc='upper left', bbox_to_anchor=(0.1, -0.02), frameon=False, fontsize=9, ncols=2)


def svg(figure: Figure, name: str) -> Markup:
  """Returns ``figure`` as an ``<svg>`` element without fixed size, its ids made unique by ``name``."""
  file = io.StringIO()
  with matplotlib.rc_context({**_STYLE, 'svg.hashsalt': name}):
    figure.savefig(file, format='svg', transparent=True, bbox_inches='tight', pad_inches=0.03,
                   metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')))
  text = file.getvalue()[file.getvalue().index('<svg'):]
  # HTML knows the name spaces; group ids repeat from figure to figure; the page's style sheet sets size and font.
  text = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', '', text)
  text = re.sub(r'<g id="[^"]*"', '<g', text)
  text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', f' role="img" aria-label="{html.escape(name)}"', text, count=1)
  for variable, colour in THEME.items():
    text = text.replace(colour, f'var(--{variable})')
  return Markup(text)


@contextlib.contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
  """A figure of ``width`` x ``height`` inches in the page's style and its axes, without pyplot's global state."""
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(width, height))
    yield figure, figure.add_subplot()
