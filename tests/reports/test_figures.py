"""Drawings: themed, free of addresses, and showing the numbers they were given."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from fer_jax.reports import figures
from tests.processes import ROOT

CONFUSION, CLASSES = np.array([[7, 1, 0], [2, 2, 0], [0, 0, 0]]), ['neutral', 'happiness', 'fear']
POINTS = [{'features': features, 'shots': shots, 'accuracy': accuracy, 'sd': sd} for features, shots, accuracy, sd in (
    ('this network', 20, 0.6, 0.01), ('this network', 1, 0.3, 0.05), ('untrained network', 5, 0.2, None))]


def texts(svg):
  return re.findall(r'<text[^>]*>([^<]*)</text>', svg)


def test_confusion_matrix_prints_shares_of_rows_and_counts():
  shown = texts(figures.confusion_matrix(CONFUSION, CLASSES))
  assert sorted(t for t in shown if t.endswith('%')) == ['12%', '50%', '50%', '88%']
  assert sorted(t for t in shown if t.isdigit()) == ['1', '2', '2', '7']
  assert shown.count('happiness') == 2


def test_class_recall_prints_rates_and_says_which_class_has_no_examples():
  shown = texts(figures.class_recall(CONFUSION, CLASSES))
  assert {'87.5%', '50.0%', 'n = 8', 'n = 4', 'no examples'} <= set(shown)


@pytest.mark.parametrize('train, valid', [(([1, 2], [3.0, 4.0]), ([], [])), (([], []), ([1, 5], [0.1, 0.2])),
                                          ((range(5000), np.sin(range(5000))), ([1], [0.5]))])
def test_curves_of_any_length_stay_small(train, valid):
  assert 1_000 < len(figures.curve('loss/pal', train, valid)) < 60_000


def test_few_shot_curves_are_named_and_marked_by_shots():
  shown = texts(figures.few_shot('few', POINTS, {'majority class': 0.25, 'all 900 faces': 0.7}))
  assert {'1', '5', '20', 'this network', 'untrained network', 'majority class', 'all 900 faces'} <= set(shown)


def test_few_shot_curve_rises_from_left_to_right_and_has_a_band_only_where_there_is_a_spread():
  plain = [{**point, 'sd': None} for point in POINTS]
  svg, bare = (figures.few_shot('few', points, {}) for points in (POINTS, plain))
  assert svg.count('opacity: 0.18') == 1 and 'opacity: 0.18' not in bare
  line = re.search(r'd="M ([^"C]*)"[^>]*stroke: var\(--accent\)', bare)[1]  # What is round is a marker.
  (x, y), (x_end, y_end) = [map(float, point.split()) for point in line.split('L')]
  assert x < x_end and y > y_end  # SVG counts y from the top.


def test_drawings_follow_the_theme_and_name_nothing_outside():
  drawn = [figures.curve('a', ([1, 2], [3, 4]), ([1], [2])), figures.curve('b', ([1, 2], [3, 4]), ([1], [2])),
           figures.confusion_matrix(CONFUSION, CLASSES), figures.class_recall(CONFUSION, CLASSES),
           figures.few_shot('c', POINTS, {'majority class': 0.3}), figures.few_shot('d', POINTS, {})]
  ids = [i for svg in drawn for i in re.findall(r'\bid="([^"]*)"', svg)]
  assert len(ids) == len(set(ids)), 'ids of one drawing must not catch the references of another'
  for svg in drawn:
    assert svg.startswith('<svg') and 'http' not in svg and 'var(--ink)' in svg or 'var(--accent)' in svg
    assert not any(colour in svg for colour in figures.THEME.values())
    assert set(re.findall(r'href="#([^"]*)"', svg)) | set(re.findall(r'url\(#([^)]*)\)', svg)) <= set(ids)


@pytest.mark.parametrize('backend, then', [('module://matplotlib_inline.backend_inline', ''), ('no_backend', ''),
                                           ('svg', 'svg')])
def test_no_backend_of_the_environment_is_needed(backend, then):
  code = (
      'import os, numpy; from fer_jax.reports import figures, robustness\n'
      'assert figures.confusion_matrix(numpy.eye(2, dtype=int), ["a", "b"]).startswith("<svg")\n'
      'import matplotlib; print(os.environ["MPLBACKEND"], matplotlib.rcParams._get("backend"))')
  shown = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=os.environ | {'MPLBACKEND': backend},
                         capture_output=True, text=True)
  assert shown.returncode == 0, shown.stderr
  ours, used = shown.stdout.split(maxsplit=1)
  assert ours == backend and (used.strip() == then or not then)  # For what else is in the process it is as it was.
