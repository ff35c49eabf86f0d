"""Drawings of an ablation's rows: marks where the numbers are, names that do not hide each other, telling colours."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, minimize

from fer_jax.reports import figures, row_figures
from fer_jax.reports.row_figures import Dots

ROWS = [Dots('landmark', 0, [80.0, 81.0, 85.0], 79.0, 85.0, '82.00 %'),
        Dots('plain', 1, [70.0, 74.0], 60.0, 84.0, '72.00 %', 'LEAKY'),
        Dots('alone', 2, [77.0], text='77.00 %'), Dots('none', 3, [], text='no finished run')]
CSS = Path(row_figures.__file__).with_name('page.css').read_text()


def texts(svg):
  return re.findall(r'<text[^>]*>([^<]*)</text>', svg)


def marks(svg, colour, opacity):
  """Places (x, y) of the filled markers of a row; those of seeds are transparent, others are not."""
  found = re.findall(r'<use [^>]*x="([\d.-]+)" y="([\d.-]+)" style="fill: var\(--(row-\d)\)([^"]*)"', svg)
  return np.array([(float(x), float(y)) for x, y, shade, rest in found
                   if shade == colour and ('fill-opacity' in rest) == (opacity < 1)])


def lines(svg, colour):
  """Ends (x0, y0, x1, y1) of the straight lines of a colour."""
  found = re.findall(r'd="M ([\d.-]+) ([\d.-]+) \nL ([\d.-]+) ([\d.-]+) \n"[^>]*stroke: var\(--' + colour + r'\)', svg)
  return np.array(found, float).reshape(-1, 4)


def scale(values, pixels):
  """The line value -> pixel that goes through all these points."""
  slope, start = np.polyfit(values, pixels, 1)
  np.testing.assert_allclose(slope * np.asarray(values) + start, pixels, atol=0.01)
  return lambda value: slope * value + start


@pytest.mark.parametrize('draw', [row_figures.intervals, row_figures.compact])
def test_dots_means_and_ends_of_intervals_lie_on_one_axis(draw):
  svg = draw('a', ROWS, 'accuracy, %')
  seeds, others = (marks(svg, 'row-0', opacity) for opacity in (0.5, 1))
  x = scale(ROWS[0].values, seeds[:, 0])
  np.testing.assert_allclose(sorted(others[:, 0]), [x(79), x(82), x(85)], atol=0.01)
  np.testing.assert_allclose(lines(svg, 'row-0')[0, [0, 2]], [x(79), x(85)], atol=0.01)
  np.testing.assert_allclose(sorted(marks(svg, 'row-1', 0.5)[:, 0]), [x(70), x(74)], atol=0.01)
  assert seeds[:, 1].min() > others[0, 1], 'seeds stand below their mean'
  # A single seed is its own mean and has no interval; a row without runs has only its name.
  np.testing.assert_allclose(marks(svg, 'row-2', 1)[:, 0], [x(77)], atol=0.01)
  assert not len(marks(svg, 'row-2', 0.5)) and not len(lines(svg, 'row-2')) and 'row-3' not in svg
  # Rows from top to bottom.
  assert others[0, 1] < marks(svg, 'row-1', 1)[0, 1] < marks(svg, 'row-2', 1)[0, 1]


@pytest.mark.parametrize('draw', [row_figures.intervals, row_figures.compact])
def test_rows_have_their_names_numbers_and_marks_beside_them(draw):
  shown = ' '.join(texts(draw('a', ROWS, 'accuracy, %')))
  for words in ('landmark', 'plain', 'alone', 'none', '82.00 %', '72.00 %', 'no finished run', 'accuracy, %'):
    assert shown.count(words) == 1, words
  assert shown.count('LEAKY') == 1


def test_a_difference_has_a_line_at_0_in_every_row_and_is_hollow_where_its_interval_has_0():
  rows = [Dots('a', 1, [2.0], 1.0, 3.0), Dots('b', 2, [-1.0], -4.0, 2.0, hollow=True)]
  svg = row_figures.intervals('d', rows, 'points', zero=True)
  x = scale([1, 3], lines(svg, 'row-1')[0, [0, 2]])
  np.testing.assert_allclose(lines(svg, 'ink')[:, [0, 2]], x(0), atol=0.01)
  assert len(lines(svg, 'ink')) == 2 and not len(lines(row_figures.intervals('d', rows, 'points'), 'ink'))
  hollow = re.findall(r'<use [^>]*x="([\d.]+)"[^>]*style="fill: var\(--card\); stroke: var\(--(row-\d)\)', svg)
  assert [shade for _, shade in hollow] == ['row-2'] and float(hollow[0][0]) == pytest.approx(x(-1), abs=0.01)


@pytest.mark.parametrize('values, low, high, below_0', [([0.0, 0.0], 0.0, 0.0, False), ([0.0, 0.0], -3.0, 3.0, True)])
def test_an_axis_goes_below_0_for_what_lies_there_alone(values, low, high, below_0):
  ticks = texts(row_figures.compact('a', [Dots('contempt', 0, values, low, high)], 'recall, %'))
  assert any('\N{MINUS SIGN}' in tick for tick in ticks) == below_0 and {'0', '0.0'} & set(ticks)


def test_scatter_has_seeds_means_and_constants_in_their_places():
  rows = [(ROWS[0], [0.2, 0.3, 0.7]), (ROWS[1], [0.1, 0.5])]
  svg = row_figures.scatter('s', rows, {'uniform': 0.0, 'training mean': 0.6}, 'cosine', 'accuracy, %')
  seeds, mean = marks(svg, 'row-0', 0.5), marks(svg, 'row-0', 1)
  x, y = scale([0.2, 0.3, 0.7], seeds[:, 0]), scale(ROWS[0].values, seeds[:, 1])
  assert y(85) < y(80), 'SVG counts y from the top'
  np.testing.assert_allclose(mean, [[x(0.4), y(82)]], atol=0.01)
  np.testing.assert_allclose(marks(svg, 'row-1', 1), [[x(0.3), y(72)]], atol=0.01)
  np.testing.assert_allclose(marks(svg, 'row-1', 0.5), [[x(0.1), y(70)], [x(0.5), y(74)]], atol=0.01)
  dashed = lines(svg, 'muted')
  np.testing.assert_allclose(sorted(dashed[:, 0]), [x(0), x(0.6)], atol=0.01)
  np.testing.assert_allclose(dashed[:, 0], dashed[:, 2])
  assert {'landmark', 'plain LEAKY', 'uniform', 'training mean', 'cosine', 'accuracy, %'} <= set(texts(svg))


def test_names_in_a_scatter_do_not_hide_each_other():
  rows = [(Dots(f'row {i}', i, [80 + i / 1000]), [0.5]) for i in range(8)]
  svg = row_figures.scatter('s', rows, {}, 'cosine', 'accuracy, %')
  heights = [float(y) for y, text in re.findall(r'<text[^>]* y="([\d.]+)"[^>]*>([^<]*)</text>', svg) if 'row' in text]
  assert len(heights) == 8 and np.diff(sorted(heights)).min() > 9, 'points of the font'


@given(st.lists(st.floats(-5, 5), max_size=6), st.floats(0.01, 2))
def test_apart_moves_as_little_as_can_be(values, gap):
  moved = row_figures.apart(values, gap)
  order = np.argsort(values, kind='stable')
  assert (np.diff(moved[order]) >= gap - 1e-9).all()
  if len(values) > 1:
    start = np.asarray(values)[order]
    keep = LinearConstraint(np.diff(np.eye(len(values)), axis=0), gap, np.inf)
    best = minimize(lambda z: np.square(z - start).sum(), start, method='SLSQP', constraints=[keep]).x
    assert np.square(moved[order] - start).sum() <= np.square(best - start).sum() + 1e-4


def test_what_is_apart_stays():
  np.testing.assert_array_equal(row_figures.apart([3.0, 1.0, 2.0], 0.5), [3, 1, 2])
  np.testing.assert_allclose(row_figures.apart([1.0, 1.0], 0.5), [0.75, 1.25])


# Linear RGB of the colours as the colour-blind see them: G. M. Machado et al., 2009, severity 1.
BLIND = {
    'none': np.eye(3),
    'protan': [[.152286, 1.052583, -.204868], [.114503, .786281, .099216], [-.003882, -.048116, 1.051998]],
    'deutan': [[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.01182, .04294, .968881]],
    'tritan': [[1.255528, -.076749, -.178779], [-.078411, .930809, .147602], [.004733, .691367, .3039]],
}


def cielab(colour, blind):
  srgb = np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)]) / 255
  linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
  xyz = (np.array([[.4124, .3576, .1805], [.2126, .7152, .0722], [.0193, .1192, .9505]])
         @ np.clip(np.array(blind) @ linear, 0, 1) / [0.9505, 1, 1.089])
  f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
  return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize('blind', BLIND)
@pytest.mark.parametrize('theme', [0, 1])
def test_any_two_rows_differ_in_colour_for_everyone(theme, blind):
  light, dark = CSS.split('@media (prefers-color-scheme: dark)')[:2]
  colours = re.findall(r'--row-\d: (#\w+)', (light, dark)[theme])
  assert len(colours) == len(row_figures.COLOURS)
  seen = [cielab(colour, BLIND[blind]) for colour in colours]
  assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 18


def test_drawings_name_nothing_outside_and_share_no_ids():
  drawn = [row_figures.intervals('a', ROWS, '%'), row_figures.intervals('b', ROWS, '%'),
           row_figures.compact('c', ROWS, '%'), row_figures.scatter('d', [(ROWS[0], [1, 2, 3])], {'x': 2}, 'x', 'y'),
           row_figures.scatter('e', [], {}, 'x', 'y'), row_figures.intervals('f', ROWS[3:], '%')]
  ids = [i for svg in drawn for i in re.findall(r'\bid="([^"]*)"', svg)]
  assert len(ids) == len(set(ids))
  for svg in drawn:
    assert 'http' not in svg and not any(colour in svg for colour in figures.THEME.values())
    assert set(re.findall(r'href="#([^"]*)"', svg)) | set(re.findall(r'url\(#([^)]*)\)', svg)) <= set(ids)


def test_names_are_shown_as_they_are():
  assert 'a_{$x$}&lt;b&gt; &amp; c' in row_figures.intervals('a', [Dots('a_{$x$}<b> & c', 0, [1.0, 2.0])], '%')
