"""Every backbone against its published architecture and against the contract they share."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import registry
from fer_jax.errors import UserError
from fer_jax.models.classifier import make_classifier
from tests.backbones import shorten

TAPS = ('stem', 'stage1', 'stage2', 'stage3', 'stage4')

# (name, options, image side) of a net that is quick to run.
TINY = [
    ('resnet', {'depth': 10, 'width': 4, 'stem': 'small'}, 16),
    ('vgg', {'width': 4, 'batch_norm': True, 'last_pool': False}, 16),
    ('vit', {'width': 12, 'heads': 3, 'depth': 4, 'patch': 4}, 16),
    ('mobilenet_v2', {'width': 0.1}, 32),
    ('mobilefacenet', {'width': 4}, 32),
    ('ir', {'width': 4}, 32),
    ('mobilenet_v1', {'width': 4}, 32),
    ('efficientnet_lite0', {}, 32),
    ('inception_resnet_v1', {'width': 4}, 75),
]
tiny = pytest.mark.parametrize('name, options, size', TINY, ids=[name for name, *_ in TINY])


def make(name, options=None, **fixed):
  return registry.find('models.backbones', name)(**(options or {}), **fixed)


def images_of(size, rows=4):
  return jax.random.normal(jax.random.key(1), (rows, size, size, 3))


def fill(model, images):
  """Variables of a trained kind: statistics and biases that are not zero or one, drawn without compiling anything."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key in ('scale', 'var'):
      value = rng.uniform(0.8, 1.25, leaf.shape)
    else:
      value = rng.normal(size=leaf.shape) * (0.1 if leaf.ndim == 1 else np.sqrt(2 / np.prod(leaf.shape[:-1])))
    return jnp.asarray(value, leaf.dtype)

  variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
  return jax.tree_util.tree_map_with_path(draw, {k: v for k, v in variables.items() if k != 'perturbations'})


@pytest.fixture
def short(monkeypatch):
  shorten(monkeypatch)


@functools.cache
def _shapes(name, options, size, dtype, classes):
  model = make_classifier({'backbone': {'name': name, **dict(options)}, 'head': {'name': 'linear'}, 'dtype': dtype,
                           'region_norm': 'separate'}, classes)
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
  return variables, jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, images)


def shapes(name, side, dtype='float32', classes=1000, **options):
  """Shapes of a classifier's variables and of its outputs."""
  return _shapes(name, tuple(options.items()), side, dtype, classes)


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


# Published architectures: counts.


@pytest.mark.parametrize('name, size, options, parameters', [
    ('vgg', 224, {'fully_connected': True}, 138_357_544),
    ('vgg', 224, {'fully_connected': True, 'batch_norm': True}, 138_365_992),
    ('vit', 224, {'size': 'tiny'}, 5_717_416),
    ('vit', 224, {'size': 'small'}, 22_050_664),
    ('vit', 224, {'size': 'base'}, 86_567_656),
    ('mobilenet_v2', 224, {}, 3_504_872),
    ('mobilenet_v2', 224, {'width': 0.5}, 1_968_680),
])
def test_parameter_counts_with_a_classifier_of_1000_classes(name, size, options, parameters):
  # torchvision's (VGG, MobileNetV2) and timm's published counts; running statistics are not counted.
  variables, _ = shapes(name, size, **options)
  assert count(variables['params']) == parameters


@pytest.mark.parametrize('name, size, options, parameters', [
    ('mobilenet_v2', 224, {}, 2_223_872),
    ('mobilefacenet', 112, {'embedding': True}, 999_936),
    ('ir', 112, {'embedding': True}, 43_574_976),
    ('mobilenet_v1', 224, {}, 3_206_976),
    ('efficientnet_lite0', 224, {}, 3_371_008),
    ('inception_resnet_v1', 160, {'embedding': True}, 23_482_624),
])
def test_parameter_counts_of_trunks(name, size, options, parameters):
  # The sums of the published state dicts. Of IR-50 there is a second form, insightface's iresnet50: a third BatchNorm
  # in each unit and a convolution in the first shortcut make it 43,590,848.
  variables, _ = shapes(name, size, **options)
  assert count(variables['params']['backbone']) == parameters


# Published architectures: names and shapes of PyTorch state dicts.


def torch_name(path):
  """Name in the published state dict of a parameter or statistic, given its path in a backbone's variables."""
  fields = {'kernel': 'weight', 'scale': 'weight', 'negative_slope': 'weight', 'mean': 'running_mean',
            'var': 'running_var'}
  names = [key.key for key in path]
  return '.'.join([*(re.sub(r'_(\d+)', r'.\1', n) for n in names[:-1]), fields.get(names[-1], names[-1])])


AXES = {4: (3, 2, 0, 1), 2: (1, 0)}  # HWIO to OIHW, and a dense kernel's inputs and outputs.


def as_state_dict(name, side, **options):
  variables, _ = shapes(name, side, **options)
  out = {}
  for collection in ('params', 'batch_stats'):
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables.get(collection, {}).get('backbone', {})):
      out[torch_name(path)] = tuple(leaf.shape[i] for i in AXES.get(leaf.ndim, range(leaf.ndim)))
  return out


class StateDict(dict):
  """Names and shapes, written out layer by layer."""

  def norm(self, name, channels, running=True):
    for field in ('weight', 'bias') + (('running_mean', 'running_var') if running else ()):
      self[f'{name}.{field}'] = (channels,)

  def layer(self, name, *shape, bias=True):
    self[f'{name}.weight'] = shape
    if bias:
      self[f'{name}.bias'] = shape[:1]


def vgg16(batch_norm):
  out = StateDict()
  if batch_norm:
    convs = [(0, 64), (3, 64), (7, 128), (10, 128), (14, 256), (17, 256), (20, 256), (24, 512), (27, 512), (30, 512),
             (34, 512), (37, 512), (40, 512)]
  else:
    convs = [(0, 64), (2, 64), (5, 128), (7, 128), (10, 256), (12, 256), (14, 256), (17, 512), (19, 512), (21, 512),
             (24, 512), (26, 512), (28, 512)]
  channels = 3
  for at, width in convs:
    out.layer(f'features.{at}', width, channels, 3, 3)
    if batch_norm:
      out.norm(f'features.{at + 1}', width)
    channels = width
  out.layer('classifier.0', 4096, 25088)
  out.layer('classifier.3', 4096, 4096)
  return out


def deit(width):
  out = StateDict({'cls_token': (1, 1, width), 'pos_embed': (1, 197, width)})
  out.layer('patch_embed.proj', width, 3, 16, 16)
  for block in range(12):
    at = f'blocks.{block}'
    out.norm(f'{at}.norm1', width, running=False)
    out.layer(f'{at}.attn.qkv', 3 * width, width)
    out.layer(f'{at}.attn.proj', width, width)
    out.norm(f'{at}.norm2', width, running=False)
    out.layer(f'{at}.mlp.fc1', 4 * width, width)
    out.layer(f'{at}.mlp.fc2', width, 4 * width)
  out.norm('norm', width, running=False)
  return out


def ir50():
  out = StateDict({'input_layer.2.weight': (64,)})
  out.layer('input_layer.0', 64, 3, 3, 3, bias=False)
  out.norm('input_layer.1', 64)
  channels = 64
  for unit, depth in enumerate([64] * 3 + [128] * 4 + [256] * 14 + [512] * 3):
    at = f'body.{unit}'
    out.norm(f'{at}.res_layer.0', channels)
    out.layer(f'{at}.res_layer.1', depth, channels, 3, 3, bias=False)
    out[f'{at}.res_layer.2.weight'] = (depth,)
    out.layer(f'{at}.res_layer.3', depth, depth, 3, 3, bias=False)
    out.norm(f'{at}.res_layer.4', depth)
    if channels != depth:
      out.layer(f'{at}.shortcut_layer.0', depth, channels, 1, 1, bias=False)
      out.norm(f'{at}.shortcut_layer.1', depth)
    channels = depth
  out.norm('output_layer.0', 512)
  out.layer('output_layer.3', 512, 512 * 7 * 7)
  out.norm('output_layer.4', 512)
  return out


@pytest.mark.parametrize('name, size, options, published', [
    ('vgg', 224, {'fully_connected': True}, lambda: vgg16(False)),
    ('vgg', 224, {'fully_connected': True, 'batch_norm': True}, lambda: vgg16(True)),
    ('vit', 224, {'size': 'tiny'}, lambda: deit(192)),
    ('vit', 224, {'size': 'small'}, lambda: deit(384)),
    ('ir', 112, {'embedding': True}, ir50),
], ids=['vgg16', 'vgg16_bn', 'deit_tiny', 'deit_small', 'IR_50'])
def test_every_parameter_maps_to_one_of_the_published_state_dict(name, size, options, published):
  assert as_state_dict(name, size, **options) == published()


# The contract: taps, features, attention.


@pytest.mark.parametrize('name, size, options, sides, channels', [
    ('resnet', 224, {}, (112, 56, 28, 14, 7), (64, 64, 128, 256, 512)),
    ('vgg', 224, {}, (224, 112, 56, 28, 14), (64, 128, 256, 512, 512)),
    ('vit', 224, {}, (14,) * 5, (384,) * 5),
    ('mobilenet_v2', 224, {}, (112, 56, 28, 14, 7), (32, 24, 32, 96, 1280)),
    ('mobilefacenet', 112, {}, (56, 56, 28, 14, 7), (64, 64, 64, 128, 512)),
    ('ir', 112, {}, (112, 56, 28, 14, 7), (64, 64, 128, 256, 512)),
    ('mobilenet_v1', 224, {}, (112, 56, 28, 14, 7), (32, 128, 256, 512, 1024)),
    ('efficientnet_lite0', 224, {}, (112, 56, 28, 14, 7), (32, 24, 40, 112, 1280)),
    ('inception_resnet_v1', 160, {}, (77, 36, 17, 8, 3), (64, 192, 256, 896, 1792)),
])
def test_taps_at_the_native_size(name, size, options, sides, channels):
  _, outputs = shapes(name, size, **options)
  assert set(outputs.taps) == set(TAPS)
  assert [outputs.taps[tap].shape for tap in TAPS] == [
      (2, side, side, width) for side, width in zip(sides, channels, strict=True)]
  assert outputs.embedding.shape == (2, channels[-1])
  assert (outputs.attention is not None) == (name == 'vit')


@pytest.mark.parametrize('name, size, options, shape', [
    ('vgg', 224, {}, (7, 7, 512)),
    ('vgg', 224, {'last_pool': False}, (14, 14, 512)),
    ('vgg', 32, {'width': 4}, (1, 1, 32)),
    ('vgg', 224, {'fully_connected': True, 'width': 4}, (1, 1, 256)),
    ('vit', 32, {'size': 'tiny', 'patch': 8, 'depth': 4}, (4, 4, 192)),
    ('mobilenet_v2', 112, {'width': 1.4}, (4, 4, 1792)),
    ('mobilefacenet', 112, {'embedding': True}, (1, 1, 128)),
    ('ir', 32, {'embedding': True, 'width': 4}, (1, 1, 32)),
    ('inception_resnet_v1', 160, {'embedding': True, 'width': 4}, (1, 1, 64)),
])
def test_shape_of_features(name, size, options, shape):
  run = lambda x: make(name, options).init_with_output(jax.random.key(0), x, train=False)[0][0]
  assert jax.eval_shape(run, jnp.zeros((2, size, size, 3))).shape == (2, *shape)


@pytest.mark.parametrize('name, size, options, sides', [
    ('resnet', 33, {'width': 4, 'depth': 10}, (17, 9, 5, 3, 2)),
    ('resnet', 33, {'width': 4, 'depth': 50, 'form': 'caffe'}, (17, 8, 4, 2, 1)),
    ('resnet', 35, {'width': 4, 'depth': 50, 'form': 'caffe'}, (18, 9, 5, 3, 2)),
    ('resnet', 1, {'width': 4, 'depth': 50, 'form': 'caffe'}, (1, 1, 1, 1, 1)),
    ('vgg', 33, {'width': 4}, (33, 16, 8, 4, 2)),
    ('mobilenet_v2', 33, {'width': 0.1}, (17, 9, 5, 3, 2)),
    ('mobilefacenet', 33, {'width': 4}, (17, 17, 9, 5, 3)),
    ('ir', 33, {'width': 4}, (33, 17, 9, 5, 3)),
    ('mobilenet_v1', 33, {'width': 4}, (17, 9, 5, 3, 2)),
    ('mobilenet_v1', 1, {'width': 4}, (1, 1, 1, 1, 1)),
    ('efficientnet_lite0', 33, {}, (17, 9, 5, 3, 2)),
    ('inception_resnet_v1', 75, {'width': 4}, (35, 15, 7, 3, 1)),
])
def test_taps_of_images_that_no_stride_divides(name, size, options, sides):
  _, outputs = shapes(name, size, **options)
  assert [outputs.taps[tap].shape[1:3] for tap in TAPS] == [(side, side) for side in sides]


@tiny
def test_bfloat16_computes_in_bfloat16_and_keeps_variables_and_logits_in_float32(name, options, size):
  variables, outputs = shapes(name, size, dtype='bfloat16', classes=7, **options)
  assert {value.dtype for value in outputs.taps.values()} == {jnp.dtype('bfloat16')}
  assert outputs.logits.dtype == jnp.float32
  kept = {k: v for k, v in variables.items() if k != 'perturbations'}
  assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype('float32')}
  assert outputs.attention is None or outputs.attention.dtype == jnp.float32


@tiny
def test_a_perturbation_of_a_tap_moves_the_tap_and_what_follows(name, options, size, short):
  model, images = make(name, options), images_of(size, 2)
  variables = fill(model, images)
  run = jax.jit(lambda moved: model.apply({**variables, 'perturbations': moved}, images, train=False))
  zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(
      lambda: model.init(jax.random.key(0), images, train=False))['perturbations'])
  assert set(zeros) == set(TAPS)
  moves = lambda moved, plain: np.abs(moved - plain).max() > 1e-3 * np.abs(plain).max()
  features, taps, _ = run(zeros)
  for i, tap in enumerate(TAPS):
    push = jax.random.normal(jax.random.key(i), zeros[tap].shape)
    moved_features, moved_taps, _ = run({**zeros, tap: push})
    np.testing.assert_allclose(moved_taps[tap], taps[tap] + push, atol=1e-5)
    for other in TAPS[:i]:
      np.testing.assert_array_equal(moved_taps[other], taps[other])
    for other in TAPS[i + 1:]:
      assert moves(moved_taps[other], taps[other]), (tap, other)
    assert moves(moved_features, features), tap


def test_attention_rows_sum_to_one_and_stage4_is_the_features():
  name, options, size = TINY[2]
  model, images = make(name, options), images_of(size, 2)
  features, taps, attention = jax.jit(functools.partial(model.apply, train=False))(fill(model, images), images)
  assert attention.shape == (2, 4, 17, 17)
  np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-5)
  np.testing.assert_array_equal(taps['stage4'], features)


def test_tokens_of_a_transformer_keep_their_places():
  name, options, size = TINY[2]
  model = make(name, options)
  variables = fill(model, images_of(size, 1))
  stem = jax.jit(lambda x: model.apply(variables, x, train=False)[1]['stem'][0])
  image = images_of(size, 1)
  change = np.abs(stem(image.at[:, 4:8, 8:12].add(1.0)) - stem(image)).max(axis=-1)
  assert change[1, 2] > 1e-3 and np.count_nonzero(change) == 1


# The contract: regions, and what is kept where the inside of blocks is computed again.


def test_regions_are_normalised_on_their_own_as_if_seen_one_after_the_other():
  name, options, size = TINY[0]
  faces, regions = 4, 3
  images = images_of(size, faces * regions)
  variables = fill(make(name, options), images)
  train = lambda model: jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=['batch_stats']))
  (features, _, _), updates = train(make(name, options, regions=regions))(variables, images)
  of_region = train(make(name, options))
  for r in range(regions):
    (alone, _, _), stats = of_region(variables, images[r::regions])
    variables = {**variables, **stats}
    np.testing.assert_allclose(features[r::regions], alone, atol=1e-4, rtol=1e-4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), updates['batch_stats'],
               variables['batch_stats'])


def test_what_leaves_a_block_is_named_for_rematerialisation(short):
  # config.remat keeps what has this name and computes the rest again: for VGG these are the stages.
  for (name, options, size), blocks in zip(TINY, (4, 5, 4, 4, 4, 4, 4, 4, 6), strict=True):
    model, images = make(name, options), jnp.zeros((2, size, size, 3))
    variables = jax.eval_shape(lambda x, m=model: m.init(jax.random.key(0), x, train=False), images)
    program = jax.make_jaxpr(lambda v, x, m=model: m.apply(v, x, train=True, mutable=['batch_stats'])[0][0])(
        variables, images)
    assert sum(eqn.params.get('name') == 'block' for eqn in program.eqns) == blocks, name


# Mistakes.


@pytest.mark.parametrize('name, options, message', [
    ('vit', {'size': 'huge'}, "size='huge': choose 'tiny', 'small', 'base'"),
    ('vit', {'depth': 6}, 'depth=6: choose a multiple of 4'),
    ('vit', {'heads': 5}, 'width=384: choose a multiple of heads=5'),
    ('mobilenet_v2', {'width': 64}, 'width=64: it multiplies'),
    ('ir', {'depth': 18}, r'depth=18: an ir net has depth \[50, 100, 152\]'),
    ('resnet', {'form': 'keras'}, "form='keras': choose 'torchvision' or 'caffe'"),
    ('resnet', {'form': 'caffe'}, "form='caffe' is that of depth 50, and model.backbone.depth is 18"),
])
def test_bad_options(name, options, message):
  with pytest.raises(UserError, match=message):
    make(name, options)


@pytest.mark.parametrize('name, options, size, message', [
    ('vgg', {'fully_connected': True}, 112, 'fc6 takes a 7 x 7 map and images of 112 x 112 pixels give 3 x 3'),
    ('vgg', {}, 16, 'images of 16 x 16 pixels are pooled away'),
    ('vit', {}, 100, 'patch=16: images of 100 x 100 pixels'),
    ('mobilefacenet', {'embedding': True}, 96, '7 x 7 map and images of 96 x 96 pixels give 6 x 6'),
    ('inception_resnet_v1', {}, 74, 'images of 74 x 74 are too small; the least is 75 x 75'),
])
def test_images_that_do_not_fit(name, options, size, message):
  with pytest.raises(UserError, match=message):
    jax.eval_shape(lambda x: make(name, options).init(jax.random.key(0), x, train=False), jnp.zeros((1, size, size, 3)))
