"""Drawings: themed, free of addresses, and showing the numbers they were given."""

import re

import numpy as np
import pytest

from fer_jax.reports import figures

CONFUSION, CLASSES = np.array([[7, 1, 0], [2, 2, 0], [0, 0, 0]]), ['neutral', 'happiness', 'fear']


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


def test_drawings_follow_the_theme_and_name_nothing_outside():
  drawn = [figures.curve('a', ([1, 2], [3, 4]), ([1], [2])), figures.curve('b', ([1, 2], [3, 4]), ([1], [2])),
           figures.confusion_matrix(CONFUSION, CLASSES), figures.class_recall(CONFUSION, CLASSES)]
  ids = [i for svg in drawn for i in re.findall(r'\bid="([^"]*)"', svg)]
  assert len(ids) == len(set(ids)), 'ids of one drawing must not catch the references of another'
  for svg in drawn:
    assert svg.startswith('<svg') and 'http' not in svg and 'var(--ink)' in svg or 'var(--accent)' in svg
    assert not any(colour in svg for colour in figures.THEME.values())
    assert set(re.findall(r'href="#([^"]*)"', svg)) | set(re.findall(r'url\(#([^)]*)\)', svg)) <= set(ids)
