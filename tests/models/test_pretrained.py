"""Pretrained weights: dlib's network is dlib's, and what is no file of weights is told."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.errors import UserError
from fer_jax.models import measured, pretrained
from fer_jax.models.backbones.dlib_resnet import DlibResNet


def test_dlibs_descriptor_of_an_aligned_chip_is_dlibs():
  dlib = pytest.importorskip('dlib', reason='the extra landmarks is not installed')
  weights = pretrained.read('dlib')
  net = DlibResNet(width=weights.backbone['width'], embedding=True)
  shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 150, 150, 3)), False))
  variables, dropped = weights.variables(shapes)
  assert not dropped and sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == 5_614_592
  chip = _chip(dlib)
  theirs = np.array(dlib.face_recognition_model_v1(str(weights.path)).compute_face_descriptor(chip))
  images = (np.float32([chip, chip[:, ::-1]]) / 255 - np.float32(weights.family.mean)) / np.float32(weights.family.std)
  describe = jax.jit(lambda variables: net.apply(variables, images, False)[0][0, 0, 0])
  np.testing.assert_allclose(describe(variables), theirs, atol=1e-5)
  # The BatchNorms that stand for dlib's scales and shifts change nothing when they get statistics.
  np.testing.assert_allclose(describe(measured.with_statistics(net, variables, [images])), theirs, atol=1e-5)


def _chip(dlib):
  """A drawn face, aligned as dlib does it: (150, 150, 3) uint8."""
  drawn = draw_face(np.random.default_rng(3), 'happiness', 160)
  points = [dlib.point(*map(round, map(float, point))) for point in drawn.landmarks]
  shape = dlib.full_object_detection(dlib.rectangle(0, 0, 159, 159), points)
  return dlib.get_face_chip(np.ascontiguousarray(drawn.image), shape, 150, 0.25)


@pytest.mark.parametrize('origin, what', [
    ('dlib', True), ('imagenet_resnet:anything', True), ('gone.pth', True), ('~/gone.safetensors', True),
    ('runs/pal', False), ('gs://bucket/runs/pal', False), ('gs://bucket/resnet18.pth', True)])
def test_weights_and_runs_are_told_apart(origin, what):
  assert pretrained.is_weights(origin) == what


def test_a_run_may_be_called_like_a_file(tmp_path):
  (tmp_path / 'run.pt').mkdir()
  assert not pretrained.is_weights(str(tmp_path / 'run.pt'))


def test_what_is_not_there_or_not_local_is_told(tmp_path, monkeypatch):
  with pytest.raises(UserError, match=r'gone\.pth'):
    pretrained.read(str(tmp_path / 'gone.pth'))
  with pytest.raises(UserError, match='weights are read from a local file; copy it to every host'):
    pretrained.read('imagenet_resnet:gs://bucket/resnet18.pth')
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r'config\.init_from=dlib: .*pip install "fer_jax\[landmarks\]"'):
    pretrained.read('dlib')


def test_a_file_of_another_network_is_told(tmp_path):
  np.savez(tmp_path / 'other.npz', first=np.zeros(3), second=np.zeros(3))
  with pytest.raises(UserError, match=r'other\.npz is not of any family known here \(.*dlib_face.*\); its tensors are '
                                      r'called first, second'):
    pretrained.read(str(tmp_path / 'other.npz'))
  with pytest.raises(UserError, match=r"other\.npz is not of the family 'dlib_face'"):
    pretrained.read(f'dlib_face:{tmp_path}/other.npz')
