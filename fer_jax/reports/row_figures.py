"""Draws the rows of an ablation beside each other: intervals over seeds, and accuracy against alignment.

A row has the same colour and marker in every drawing, and its name stands beside it, so colour alone tells nothing. The
name that the functions take marks the ids inside the ``<svg>`` element that they return.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.optimize import isotonic_regression

from fer_jax.reports.figures import THEME, canvas, svg

COLOURS = tuple(name for name in THEME if name.startswith('row-'))  # The ninth row has that of the first again.
_MARKERS = 'oDs^vPX*p'  # One more than colours: only from the 73rd row on do both repeat.


class Dots(NamedTuple):
  """A row as it is drawn: its name, its place in the ablation from 0, and a number for each seed, if there are runs.

  ``low`` and ``high`` are the 95 % interval over seeds, None where nothing is known of it, as of a single seed;
  ``faces`` is that over faces, drawn thinner and below, or None. ``text`` is printed of the mean, ``mark`` is what to
  beware of, such as 'LEAKY', and the mean's marker may be ``hollow``.
  """

  label: str
  place: int
  values: Sequence[float]
  low: float | None = None
  high: float | None = None
  text: str = ''
  mark: str = ''
  faces: Sequence[float] | None = None
  hollow: bool = False


def colour(place: int) -> str:
  """The name of the colour of a row: a key of ``figures.THEME``, and a variable of the style sheet."""
  return COLOURS[place % len(COLOURS)]


def intervals(name: str, rows: Sequence[Dots], unit: str, zero: bool = False) -> Markup:
  """Draws for each row, from the top, a dot per seed, the mean as a larger marker, and its interval.

  Name and text stand above each, the unit below the axis; ``zero``: 0 is marked, for differences.
  """
  with canvas(4.9, 0.5 + 0.52 * len(rows)) as (figure, axes):
    for y, row in enumerate(rows):
      if zero:
        axes.plot([0, 0], [y - 0.22, y + 0.28], color=THEME['ink'], linewidth=1.1)
      _draw(axes, y, row)
      side = {'transform': axes.get_yaxis_transform(), 'va': 'center',
              'bbox': {'facecolor': THEME['card'], 'linewidth': 0, 'pad': 1}}
      size = 10 * min(1, 30 / len(row.label + row.mark))  # As much as has room beside the text.
      label = axes.text(0, y - 0.42, row.label, ha='left', fontsize=size, fontweight='bold', **side)
      if row.mark:
        axes.annotate(row.mark, (1, 0.5), xycoords=label, xytext=(6, 0), textcoords='offset points', va='center',
                      fontsize=0.8 * size, fontweight='bold', color=THEME['bad'])
      axes.text(1, y - 0.42, row.text, ha='right', fontsize=9, **side)
    _finish(axes, rows, unit)
    axes.set(ylim=(len(rows) - 0.55, -0.75), yticks=[])
    return svg(figure, name)


def compact(name: str, rows: Sequence[Dots], unit: str) -> Markup:
  """As ``intervals``, in half the height: the names stand to the left of the axis, the texts to the right."""
  with canvas(1.7, 0.4 + 0.23 * len(rows)) as (figure, axes):
    for y, row in enumerate(rows):
      _draw(axes, y, row, below=0.32, size=6.5)
      axes.text(1.03, y, f'{row.text} {row.mark}'.strip(), transform=axes.get_yaxis_transform(), va='center', ha='left',
                fontsize=9, color=THEME['bad' if row.mark else 'ink'])
    _finish(axes, rows, unit)
    axes.set(ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)), yticklabels=[row.label for row in rows])
    axes.tick_params(axis='y', labelcolor=THEME['ink'], labelsize=9)
    return svg(figure, name)


def _draw(axes: Axes, y: float, row: Dots, below: float = 0.2, size: float = 8) -> None:
  """The marks of one row at height ``y``, seeds and faces ``below`` the mean, whose marker has ``size`` points."""
  if not len(row.values):
    return
  shade = THEME[colour(row.place)]
  if row.low is not None and row.high is not None:
    axes.plot([row.low, row.high], [y, y], color=shade, linewidth=2.2, solid_capstyle='butt', marker='|',
              markersize=size, markeredgewidth=1.6)
  if row.faces is not None:
    axes.plot(row.faces, [y + below, y + below], color=shade, linewidth=1.1, solid_capstyle='butt', alpha=0.8)
  if len(row.values) > 1:
    # Below the line, or they would hide each other and the mean.
    axes.plot(row.values, np.full(len(row.values), y + below), color=shade, linestyle='', marker='o', markersize=4.4,
              alpha=0.55, markeredgewidth=0)
  face, edge = (THEME['card'], shade) if row.hollow else (shade, THEME['card'])
  axes.plot([np.mean(row.values)], [y], linestyle='', marker=_MARKERS[row.place % len(_MARKERS)], markersize=size,
            markerfacecolor=face, markeredgecolor=edge, markeredgewidth=1.5 if row.hollow else 1)


def _finish(axes: Axes, rows: Sequence[Dots], unit: str) -> None:
  """What the charts of dots have in common."""
  # Nothing, or nothing but zeros, around which matplotlib would choose limits on both sides.
  if not any(len(row.values) for row in rows) or not axes.dataLim.get_points()[:, 0].any():
    axes.set_xlim(0, 1)
  axes.margins(x=0.06)
  axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
  axes.set_xlabel(unit, fontsize=9)
  axes.grid(False, axis='y')
  axes.tick_params(length=0)
  axes.spines['left'].set_visible(False)


def scatter(name: str, rows: Sequence[tuple[Dots, Sequence[float]]], constants: Mapping[str, float], x: str, y: str
            ) -> Markup:
  """Draws a point per seed and a larger one for each row's mean, and a vertical line for each constant map.

  Each of ``rows`` comes with the x of every seed, in the order of its ``values``, which are the y; ``constants`` are
  the x of what knows nothing of the image, by name; ``x`` and ``y`` name the axes.
  """
  with canvas(3.1, 3.1) as (figure, axes):
    for at in constants.values():
      axes.axvline(at, color=THEME['muted'], linewidth=1.1, linestyle=(0, (4, 3)))
    means = []
    for row, xs in rows:
      look = {'color': THEME[colour(row.place)], 'marker': _MARKERS[row.place % len(_MARKERS)], 'linestyle': ''}
      mean = float(np.mean(xs)), float(np.mean(row.values))
      axes.plot(xs, row.values, markersize=4.6, alpha=0.5, markeredgewidth=0, **look)
      axes.plot(mean[:1], mean[1:], markersize=9, markeredgecolor=THEME['card'], **look)
      means.append(mean)
    axes.margins(0.08)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(length=0, labelsize=9)
    # Names to the right of the chart and above it, at the height or place of what they name, but never on each other.
    low, high = axes.get_ylim()
    for (row, _), mean, at in zip(rows, means, apart([m[1] for m in means], 0.062 * (high - low)), strict=True):
      axes.annotate(' '.join(filter(None, (row.label, row.mark))), mean, xytext=(1.07, (at - low) / (high - low)),
                    textcoords='axes fraction', va='center', fontsize=9, color=THEME['bad' if row.mark else 'ink'],
                    arrowprops={'arrowstyle': '-', 'color': THEME[colour(row.place)], 'linewidth': 0.7, 'alpha': 0.7,
                                'shrinkA': 0, 'shrinkB': 5})
    left, right = axes.get_xlim()
    for (label, value), at in zip(constants.items(), apart(list(constants.values()), 0.07 * (right - left)),
                                  strict=True):
      axes.annotate(label, (value, high), xytext=((at - left) / (right - left), 1.04), textcoords='axes fraction',
                    rotation=35, rotation_mode='anchor', ha='left', va='bottom', fontsize=9, color=THEME['muted'],
                    annotation_clip=False)
    return svg(figure, name)


def apart(values: Sequence[float], gap: float) -> np.ndarray:
  """Moves numbers as little as possible, in squares, until any two are at least ``gap`` apart; their order stays.

  With the i-th smallest lowered by i * gap, that is isotonic regression.
  """
  order = np.argsort(values, kind='stable')
  shift = gap * np.arange(len(values))
  moved = np.empty(len(values))
  if len(values):
    moved[order] = isotonic_regression(np.asarray(values, np.float64)[order] - shift).x + shift
  return moved
