"""ResNets against the published architecture: names, shapes, counts, taps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.models.backbones.resnet import ResNet
from fer_jax.models.classifier import make_classifier


def shapes(size=64, classes=1000, dtype='float32', **options):
  backbone = {'name': 'resnet', **options}
  model = make_classifier({'backbone': backbone, 'head': {'name': 'linear'}, 'dtype': dtype,
                           'region_norm': 'separate'}, classes)
  images = jnp.zeros((2, size, size, 3))
  variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
  return model, variables, jax.eval_shape(lambda v: model.apply(v, images, train=False), variables)


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize('depth, parameters', [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_parameter_counts_are_torchvisions(depth, parameters):
  # The published counts of resnet18/34/50 with 1,000 classes, BatchNorm's running statistics not counted.
  _, variables, _ = shapes(depth=depth)
  assert count(variables['params']) == parameters


def test_trunk_of_resnet18_without_its_classifier():
  _, variables, _ = shapes(depth=18)
  assert count(variables['params']['backbone']) == 11_176_512


def torch_state_dict(blocks, bottleneck):
  """Names and shapes of torchvision's state dict, OIHW, written out from its module tree."""
  out = {'conv1.weight': (64, 3, 7, 7)}

  def norm(name, channels):
    for field in ('weight', 'bias', 'running_mean', 'running_var'):
      out[f'{name}.{field}'] = (channels,)

  norm('bn1', 64)
  channels = 64
  for stage, n in enumerate(blocks):
    width = 64 * 2**stage
    for b in range(n):
      at = f'layer{stage + 1}.{b}'
      convs = [(width, channels, 1), (width, width, 3), (4 * width, width, 1)] if bottleneck else [
          (width, channels, 3), (width, width, 3)]
      for i, (o, c, k) in enumerate(convs):
        out[f'{at}.conv{i + 1}.weight'] = (o, c, k, k)
        norm(f'{at}.bn{i + 1}', o)
      if b == 0 and convs[-1][0] != channels:
        out[f'{at}.downsample.0.weight'] = (convs[-1][0], channels, 1, 1)
        norm(f'{at}.downsample.1', convs[-1][0])
      channels = convs[-1][0]
  return out


@pytest.mark.parametrize('depth, blocks, bottleneck', [(18, (2, 2, 2, 2), False), (50, (3, 4, 6, 3), True)])
def test_every_parameter_maps_to_one_of_torchvisions_state_dict(depth, blocks, bottleneck):
  _, variables, _ = shapes(depth=depth)
  fields = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
  ours = {}
  for collection in ('params', 'batch_stats'):
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables[collection]['backbone']):
      names = [key.key for key in path]
      dotted = [n.replace('_', '.') if n.startswith(('layer', 'downsample')) else n for n in names[:-1]]
      shape = leaf.shape if leaf.ndim == 1 else tuple(leaf.shape[i] for i in (3, 2, 0, 1))
      ours['.'.join([*dotted, fields[names[-1]]])] = shape
  assert ours == torch_state_dict(blocks, bottleneck)


def test_taps_of_the_standard_and_the_small_stem():
  _, _, outputs = shapes(size=224, depth=18)
  assert {name: tap.shape[1:] for name, tap in outputs.taps.items()} == {
      'stem': (112, 112, 64), 'stage1': (56, 56, 64), 'stage2': (28, 28, 128), 'stage3': (14, 14, 256),
      'stage4': (7, 7, 512)}
  _, _, outputs = shapes(size=48, depth=18, stem='small', width=8)
  assert outputs.taps['stage4'].shape == (2, 6, 6, 64)
  assert outputs.embedding.shape == (2, 64) and outputs.region_weights is None


def test_bfloat16_computes_in_bfloat16_and_keeps_parameters_and_logits_in_float32():
  _, variables, outputs = shapes(depth=18, width=8, dtype='bfloat16')
  assert outputs.taps['stage4'].dtype == jnp.bfloat16
  assert outputs.logits.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(variables['params'])} == {jnp.dtype('float32')}


@pytest.mark.parametrize('options, message', [
    ({'depth': 20}, 'depth=20'), ({'stem': 'tiny'}, "stem='tiny'")])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    ResNet(**options)


def test_unknown_components_and_options_suggest_the_nearest():
  options = {'backbone': {'name': 'resnet'}, 'head': {'name': 'linear'}, 'dtype': 'float32', 'region_norm': 'separate'}
  with pytest.raises(UserError, match="'rsenet'; did you mean 'resnet'"):
    make_classifier(options | {'backbone': {'name': 'rsenet'}}, 7)
  with pytest.raises(UserError, match="no option 'widht'; did you mean 'width'"):
    make_classifier(options | {'backbone': {'name': 'resnet', 'widht': 8}}, 7)
  with pytest.raises(UserError, match='float16'):
    make_classifier(options | {'dtype': 'float16'}, 7)
