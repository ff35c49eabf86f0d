"""dlib's face network: a small one written by hand, the real one, and files that are not whole or not it."""

import importlib.util
import pathlib

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.models import tensors
from tests.models.tensors import writers
from tests.models.tensors.writers import assert_same

RNG = np.random.default_rng(0)
draw = lambda *shape: RNG.normal(size=shape).astype(np.float32)
STEM, BIAS, GAMMA, BETA, CONV, BIAS_1, MATRIX = (
    draw(4, 3, 7, 7), draw(4), draw(4), draw(4), draw(5, 4, 3, 3), draw(5), draw(5, 2))
LAYERS = [writers.dlib_con(STEM, BIAS), writers.dlib_affine(GAMMA, BETA), writers.text('relu_'), writers.dlib_pool(),
          writers.dlib_con(CONV, BIAS_1), writers.text('add_prev_'), writers.dlib_pool('avg_pool_2'),
          writers.dlib_fc(MATRIX)]
EXPECTED = {'con_0.weight': STEM, 'con_0.bias': BIAS, 'affine_0.weight': GAMMA, 'affine_0.bias': BETA,
            'con_1.weight': CONV, 'con_1.bias': BIAS_1, 'fc_0.weight': MATRIX.T}


def models():
  """The folder of dlib's files."""
  spec = importlib.util.find_spec('face_recognition_models')
  if not spec:
    pytest.skip("dlib's files need face_recognition_models, of the extra landmarks")
  return pathlib.Path(spec.origin).parent / 'models'


def test_parameters_are_named_in_order_of_computation(read):
  assert_same(read(writers.dlib_net(LAYERS)), EXPECTED)


def test_a_matrix_with_biases(read):
  found = read(writers.dlib_net([*LAYERS[:-1], writers.dlib_fc(MATRIX, BIAS[:2])]))
  assert_same(found, EXPECTED | {'fc_0.bias': BIAS[:2]})


@pytest.mark.parametrize('content, words', [
    (writers.dlib_net(LAYERS) + b'more', '4 bytes after its last layer'),
    (writers.dlib_net(LAYERS, declared=7), 'bytes after its last layer'),
    (writers.dlib_net(LAYERS, declared=9), 'ends in the middle of a value'),
    (writers.dlib_net([*LAYERS, writers.text('bn_con2')]), "has a layer 'bn_con2'"),
    (writers.dlib_net([*LAYERS, writers.text('\x1b[2J')]), "has a layer '?[2J'"),
    (writers.dlib_net([writers.dlib_con(STEM, BIAS, draw(3))]), 'of 3 parameters whose shapes need 592'),
    (writers.dlib_net(LAYERS, image='input_rgb_image_pyra_'), "the input 'input_rgb_image_pyra_'"),
    (writers.dlib_net(LAYERS, loss='loss_mmod_'), 'is a detector of dlib'),
    (writers.dlib_net(LAYERS, loss='loss_multiclass_log_'), 'is a network of dlib, but not its face network'),
    (writers.dlib_net([writers.text('con_4') + writers.integers(2, *[1 << 31] * 4)]), 'ends in the middle of a value'),
    (writers.dlib_net([writers.text('con_4') + writers.integers(2, -1, -1, 1, 1)]), 'no tensor of dlib'),
    (writers.dlib_net([writers.text('con_4') + writers.integers(1, 1, 1, 1, 1)]), 'no tensor of dlib'),
    (writers.dlib_net([LAYERS[1].replace(writers.dlib_view(1, 4, 1, 1), writers.dlib_view(1, -4, 1, 1))]),
     'no part of parameters'),
])
def test_other_files(refused, content, words):
  assert words in refused(content)


def test_cut_off_anywhere(refused):
  content = writers.dlib_net([LAYERS[1], LAYERS[2]])
  for end in range(17, len(content)):
    assert 'cut off or damaged' in refused(content[:end])


def test_the_real_file():
  found = tensors.read(models() / 'dlib_face_recognition_resnet_model_v1.dat')
  assert sum(values.size for values in found.values()) == 5_614_592
  assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in found.values())
  widths = [32] * 7 + [64] * 8 + [128] * 6 + [256] * 8
  inputs = [3] + widths[:-1]
  assert list(found) == [f'{kind}_{i}.{part}' for i in range(29) for kind in ('con', 'affine')
                         for part in ('weight', 'bias')] + ['fc_0.weight']
  for i, (width, before) in enumerate(zip(widths, inputs, strict=True)):
    side = 3 if i else 7
    assert found[f'con_{i}.weight'].shape == (width, before, side, side)
    assert {found[f'{name}_{i}.{part}'].shape for name, part in (
        ('con', 'bias'), ('affine', 'weight'), ('affine', 'bias'))} == {(width,)}
  assert found['fc_0.weight'].shape == (128, 256)
  assert 5.7 < found['affine_0.weight'].min() and found['affine_0.weight'].max() < 24
  assert max(abs(found[f'con_{i}.bias']).max() for i in range(29)) < 1e-2


@pytest.mark.parametrize('less', [1, 9, 36, 100_000, 22_000_000, 22_465_800])
def test_the_real_file_cut_off(refused, less):
  content = (models() / 'dlib_face_recognition_resnet_model_v1.dat').read_bytes()
  assert 'cut off or damaged' in refused(content[:-less])


@pytest.mark.parametrize('name, words', [
    ('mmod_human_face_detector.dat', 'is a detector of dlib, not its face network'),
    ('shape_predictor_68_face_landmarks.dat', 'is a predictor of landmarks of dlib, not its face network'),
    ('shape_predictor_5_face_landmarks.dat', 'is a predictor of landmarks of dlib, not its face network'),
])
def test_the_real_files_beside_it(name, words):
  with pytest.raises(UserError, match=words):
    tensors.read(models() / name)
