"""The picture wall: the same faces in every column, the right maps over them, and sentences where something lacks."""

import re

import numpy as np
import pytest

from fer_jax.reports import pictures
from tests.rows import make_rows, panel, render, section


def test_the_wall_has_the_faces_that_all_rows_share_in_pairs_of_maps(tmp_path):
  rows = make_rows(tmp_path, seeds=1)
  np.savez(tmp_path / 'row0-0/panel.npz', **panel(0, names=('a', 'b', 'c')))
  np.savez(tmp_path / 'row2-0/panel.npz', **panel(2, names=('b', 'x', 'a')))
  text = section(render(tmp_path, rows)[0], 'wall')
  # The map that the loss of two rows acts on, then CAM.
  assert re.findall(r'<h3>Map: ([^<]*)', text) == ['logit sum', 'cam']
  assert 'Of each row the first seed is shown\n    (seed 0)' in text
  assert re.findall('<b>([^<]*)</b>', text) == ['neutral', 'happiness'] * 2
  wall = text.split('<h3>Map: cam')[1]
  second = panel(2, names=('b', 'x', 'a'))
  assert pictures.data_uri(pictures.overlay(second['images'][0], second['after/cam'][0])) in wall
  assert wall.count('<img') == 2 * (2 + 3)
  # Of face 'b': row 0 is right; row 1 takes it for fear; to row 2 it is the first of its panel.
  cells = wall.split('<b>happiness</b>')[1].split('</table>')[0]
  assert re.findall('<span class="(right|wrong)">([^<]*)', cells) == [
      ('right', '✓'), ('wrong', '✗ fear'), ('right', '✓')]


def test_faces_that_are_not_to_be_passed_on(tmp_path):
  rows = make_rows(tmp_path, count=2, seeds=1)
  rows[0].runs[0].record['shareable'] = False
  assert render(tmp_path, rows)[0].count('Do not pass this page on.') == 1
  kept = {key: value for key, value in panel(0).items() if key != 'images'}
  kept['mean_face'] = np.full((16, 16, 1), 99, np.uint8)
  for row in (0, 1):
    np.savez(tmp_path / f'row{row}-0/panel.npz', **kept)
  text, _ = render(tmp_path, rows)
  assert 'Do not pass this page on.' not in text and 'the maps are laid over the mean of many test faces' in text
  wall = section(text, 'wall')
  assert wall.count('<img') == 2 * 2 * (1 + 2) and 'alt="photo"' not in wall


@pytest.mark.parametrize('damage, sentence', [
    (lambda path: path.unlink(), 'row1: no faces were kept of its first seed.'),
    (lambda path: path.write_bytes(path.read_bytes()[:50]), 'row1: the faces of its first seed are damaged.'),
    (lambda path: np.savez(path, images=np.zeros((1, 4, 4, 1))), 'row1: the faces of its first seed lack names'),
    (lambda path: np.savez(path, **panel(1, names=('y', 'z'))), 'The rows have no face in common.')])
def test_missing_faces_are_sentences(tmp_path, damage, sentence):
  rows = make_rows(tmp_path, count=2, seeds=1)
  damage(tmp_path / 'row1-0/panel.npz')
  text, _ = render(tmp_path, rows)
  assert sentence in section(text, 'wall')


def test_rows_of_other_data_are_not_on_the_wall(tmp_path):
  text = section(render(tmp_path, make_rows(tmp_path, seeds=1, row2={'dataset': 'other'}))[0], 'wall')
  assert 'row2 was tested on other data and has other faces.' in text and text.count('<img') == 2 * 2 * (2 + 2)


def test_a_map_that_a_row_lacks_is_said_in_its_place(tmp_path):
  rows = make_rows(tmp_path, seeds=1, count=2)
  np.savez(tmp_path / 'row1-0/panel.npz', **panel(1, maps=('cam',)))
  assert section(render(tmp_path, rows)[0], 'wall').count('no such map') == 2
