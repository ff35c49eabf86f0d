"""Exact evaluation: every example once, in order, on any number of devices; and the panel of faces."""

import jax
import numpy as np
import pytest

from fer_jax import cluster, evaluation, run
from tests import faces

CONFIG = faces.config()


@pytest.fixture(scope='module')
def setup():
  return run.make_setup(CONFIG, faces.CLASSES, 10)


@pytest.fixture(scope='module')
def meshes(setup):
  out = {}
  for devices in (1, 8):
    mesh = cluster.make_mesh(jax.devices()[:devices])
    out[devices] = (mesh, cluster.replicate(setup.initial(), mesh).variables(),
                    evaluation.make_evaluator(setup, mesh))
  return out


def test_ragged_splits_give_the_same_table_on_one_and_eight_devices(setup, meshes):
  whole = None
  for count in (17, 1, 7, 8, 9):
    source = faces.source(count)
    for mesh, variables, evaluator in meshes.values():
      table = evaluation.collect(evaluator, variables, source, 8, mesh)
      assert len(table['label']) == count and list(table['row']) == list(range(count))
      np.testing.assert_array_equal(table['label'], source.labels)
      whole = table if whole is None else whole  # Of the 17: the others are its beginning, but for the noise's seed.
      np.testing.assert_allclose(table['logits'][0], whole['logits'][0], atol=1e-5)
      assert table['maps']['predicted'].shape == (count, 2, 2)
      p = np.exp(table['logits'] - table['logits'].max(1, keepdims=True))
      p /= p.sum(1, keepdims=True)
      np.testing.assert_allclose(table['nll'], -np.log(p[np.arange(count), table['label']]), rtol=1e-4)
      np.testing.assert_array_equal(table['prediction'], p.argmax(1))


def test_faces_without_a_label_are_predicted_and_not_scored(setup, meshes):
  source = faces.source(9)
  source.records[4]['label'] = -1
  mesh, variables, evaluator = meshes[1]
  table = evaluation.collect(evaluator, variables, source, 8, mesh)
  assert len(table['prediction']) == 9 and np.isnan(table['nll'][4]) and np.isfinite(np.delete(table['nll'], 4)).all()


def test_fallback_landmarks_are_no_valid_prior(setup, meshes):
  source = faces.source(9)
  source.records[2]['landmark_source'] = 1
  mesh, variables, evaluator = meshes[1]
  table = evaluation.collect(evaluator, variables, source, 8, mesh)
  assert list(np.flatnonzero(~table['landmarks_valid'])) == [2]


def test_panel_shows_the_first_faces_of_every_class(setup, meshes, tmp_path):
  mesh, variables, evaluator = meshes[8]
  evaluation.draw_panel(evaluator, variables, variables, faces.source(20), 16, tmp_path, mesh)
  panel = np.load(tmp_path / 'panel.npz')
  assert list(panel['labels']) == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2] and list(panel['names'][:2]) == ['0.png', '1.png']
  np.testing.assert_allclose(panel['before/predicted'], panel['after/predicted'])
