"""Every family of pretrained weights: each tensor has one place, and what does not fit is refused by name."""

import dataclasses
import re

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from fer_jax import registry
from fer_jax.errors import UserError
from fer_jax.models import pretrained
from tests.families import CASES, drawn, shapes, shapes_at, tensors_of

BESIDE_RENAMED = {'fc6': 'classifier.0', 'fc8': 'classifier.6', 'fc_0': 'fc'}  # As told of what is dropped.
every = pytest.mark.parametrize('key', CASES)


@pytest.fixture
def read(monkeypatch):
  """``read(tensors, origin)``: as ``pretrained.read``, of a file that has these tensors."""
  def reading(tensors, origin='weights.file'):
    monkeypatch.setattr('fer_jax.models.tensors.read', lambda path: dict(tensors))
    return pretrained.read(origin)
  return reading


def test_the_list_is_complete():
  assert {case.family for case in CASES.values()} == set(registry.names('models.weights'))


@every
def test_every_tensor_has_one_place_and_every_variable_one_tensor(key, read):
  case, tensors = CASES[key], tensors_of(key)
  if not any('/' in name for name in tensors):
    counts = {f'{name}.num_batches_tracked': np.int64(3) for name in list(tensors)[:1]}
    outside = {'optimizer.step': np.zeros(3)} if case.prefix else {}
    tensors |= counts | outside
  found = read(tensors, case.origin())
  assert found.name == case.family and found.outside == ('optimizer.step' in tensors)
  assert found.backbone == case.options and next(iter(found.backbone)) == 'name'
  variables, dropped = found.variables(shapes(key))
  got = {(kind, *path): value for kind, tree in variables.items() for path, value in flatten_dict(tree).items()}
  ours, _ = drawn(key)
  assert got.keys() == ours.keys()
  for path, value in got.items():
    np.testing.assert_array_equal(value, ours[path], err_msg='/'.join(path))
    assert value.dtype == np.float32
  layer = lambda name: BESIDE_RENAMED.get(name.partition('.')[0], name.partition('.')[0])
  renamed = [layer(name) + name[len(name.partition('.')[0]):] for name in case.beside]
  assert sorted(dropped) == sorted(renamed)


def plain(key):
  """The last tensor of one dimension that is no mark, and its path in the backbone."""
  marks = registry.find('models.weights', CASES[key].family).marks
  return [(name, '/'.join(path), value.size) for name, (path, value) in drawn(key)[1].items()
          if value.ndim == 1 and name not in marks and path[-1] == 'bias'][-1]


@every
@pytest.mark.parametrize('kind', ['missing', 'of another shape', 'left over'])
def test_what_does_not_fit_is_refused_by_name(key, kind, read):
  name, path, size = plain(key)
  changes, told = {
      'missing': ({name: None}, f'exactly, as .*: missing: {path}\\.$'),
      'of another shape': ({name: np.zeros(size + 1)}, rf"exactly, as .*: of another shape: '[\w.]+' is "
                           rf'\({size + 1},\) there, and {path} \({size},\) here\.$'),
      'left over': ({'extra.weight': np.zeros(2)}, r'exactly, as .*: left over: extra\.weight\.$'),
  }[kind]
  found = read(tensors_of(key, **changes), CASES[key].origin())
  with pytest.raises(UserError, match=told):
    found.variables(shapes(key))


def test_more_of_a_kind_are_counted(read):
  found = read(tensors_of('imagenet_resnet 34, small'))
  options = {**CASES['imagenet_resnet'].options, 'stem': 'small'}
  with pytest.raises(UserError, match=r'timm\): left over: (layer\d\.\d[\w.]+, ){3}[\w.]+ and \d+ more\.$'):
    found.variables(shapes_at(dataclasses.replace(CASES['imagenet_resnet'], options=options), 32))


# A square matrix has the right shape either way.
def test_square_matrices_are_turned(read):
  value = read(tensors_of('timm_vit')).variables(shapes('timm_vit'))[0]['params']['blocks_0']['attn']['proj']['kernel']
  assert value.shape == (64, 64)
  np.testing.assert_array_equal(value, drawn('timm_vit')[1]['blocks.0.attn.proj.weight'][1].T)


# Which family: from the file where it says so, else from the user.


@pytest.mark.parametrize('key, classifier, rows, prefix, families', [
    ('imagenet_resnet', 'fc', 1000, '', ['imagenet_resnet']),
    ('imagenet_resnet', 'fc', 1000, 'state_dict.', ['imagenet_resnet', 'msceleb_resnet18']),
    ('imagenet_resnet', 'fc', 7, '', ['imagenet_resnet', 'msceleb_resnet18']),
    ('imagenet_resnet', 'fc', None, '', ['imagenet_resnet', 'msceleb_resnet18']),
    ('vggface2_resnet50', 'fc', 8631, '', ['vggface2_resnet50']),
    ('vggface2_resnet50', 'fc', 1000, '', ['imagenet_resnet']),
    ('vggface2_resnet50', 'fc', None, '', ['imagenet_resnet', 'msceleb_resnet18', 'vggface2_resnet50']),
    ('imagenet_vgg16', 'classifier.6', 7, '', ['imagenet_vgg16']),
    ('imagenet_mobilenet_v2', 'classifier.1', None, '', ['imagenet_mobilenet_v2']),
    ('timm_vit', 'head', 1000, '', ['timm_deit', 'timm_vit']),
    ('timm_vit', 'head', 21843, 'model.', ['timm_vit']),
    ('facenet_casia', 'logits', 10575, '', ['facenet_casia']),
    ('facenet_casia', 'logits', None, '', ['facenet_casia', 'facenet_vggface2']),
    ('imagenet_efficientnet_lite0', '_fc', 5, '', ['imagenet_efficientnet_lite0']),
])
def test_a_family_is_told_by_its_classifier_or_by_the_user(key, classifier, rows, prefix, families, read):
  weight = f'{classifier}.weight'
  tensors = tensors_of(key, **{weight: np.zeros((rows, *CASES[key].beside[weight][1:])) if rows else None})
  tensors = {prefix + name: value for name, value in tensors.items()}
  if len(families) == 1 and rows in (1000, 8631, 10575, 21843):
    assert read(tensors).name == families[0]
    return
  shown = ' or '.join(rf"{name} \({re.escape(registry.find('models.weights', name).training_data)}\)"
                      for name in families)
  with pytest.raises(UserError, match=f'by its names weights.file can be {shown}, and nothing in it says that it is; '
                     f'if you know it, say so, such as --config.init_from={families[0]}:weights.file$'):
    read(tensors)
  for name in families:
    assert read(tensors, f'{name}:weights.file').name == name


def test_a_name_of_a_family_does_not_make_a_file_one(read):
  with pytest.raises(UserError, match=r"is not of the family 'imagenet_vgg16'; its tensors are called bn1\.bias, .*,"):
    read(tensors_of('imagenet_resnet'), 'imagenet_vgg16:weights.file')
  with pytest.raises(UserError, match=r'is not of any family known here \(dlib_face, dream_resnet18, '):
    read({'unknown.weight': np.zeros(3)})


def test_a_network_that_is_there_twice_is_not_chosen_from(read):
  tensors = tensors_of('vggface2_resnet50')
  twice = tensors | {f'teacher.{name}': value for name, value in tensors.items()}
  with pytest.raises(UserError, match="holds the network 2 times, under '' and 'teacher.'; keep one"):
    read(twice)


# Networks that no backbone can be.


def renamed(key, pattern, by):
  """The file of a case, and what matches a pattern once more with another name."""
  tensors = tensors_of(key)
  return tensors | {re.sub(pattern, by, name): value for name, value in tensors.items() if re.search(pattern, name)}


@pytest.mark.parametrize('tensors, message', [
    (lambda: renamed('imagenet_resnet', r'layer3\.1\.', 'layer3.2.'),
     r'^config.init_from: weights.file is a ResNet with \(2, 2, 3, 2\) blocks of 2 convolutions and a first kernel of '
     '7 x 7; '),
    (lambda: renamed('vggface2_resnet50', r'layer3\.5\.', 'layer3.6.'),
     r'a ResNet with \(3, 4, 7, 3\) blocks of 3 convolutions'),
    (lambda: tensors_of('imagenet_resnet', **{'conv1.weight': np.zeros((4, 3, 1, 1))}),
     r"first kernel of 1 x 1; the backbone 'resnet' has .* and 7 x 7 or 3 x 3\.$"),
    (lambda: renamed('imagenet_vgg16', r'features\.28\.', 'features.34.'), 'a VGG with 14 convolutions'),
    (lambda: renamed('face_evolve_ir', r'body\.23\.', 'body.24.'),
     r"an IR net of 25 units, and the backbone 'ir' has depth \(units\) 50 \(24\), 100 \(49\), 152 \(50\)\.$"),
    (lambda: tensors_of('imagenet_mobilenet_v2', **{'features.17.conv.2.weight': None}),
     "is MobileNetV2 .* by its other tensors, and lacks 'features.17.conv.2.weight'"),
    (lambda: tensors_of('imagenet_resnet', **{'conv1.weight': np.zeros(3)}),
     'by its names, and its tensors have not the dimensions of it'),
    (lambda: tensors_of('vggface2_mobilenet_v1', **{'conv_dw_2/depthwise_kernel': np.zeros(3)}),
     'by its names, and its tensors have not the dimensions of it'),
])
def test_what_no_backbone_can_be(tensors, message, read):
  with pytest.raises(UserError, match=message):
    read(tensors())


# Other sizes of images.


def test_a_position_embedding_for_another_grid(read):
  case = CASES['timm_vit']
  place = np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0), indexing='ij'), -1).reshape(1, 16, 2)
  value = np.concatenate([np.full((1, 1, 2), 7.0), place], axis=1)
  value = np.pad(value, ((0, 0), (0, 0), (0, 62)))
  found = read(tensors_of('timm_vit', pos_embed=value))
  embedding = lambda side: found.variables(shapes_at(case, side))[0]['params']['pos_embed']
  np.testing.assert_array_equal(embedding(32), value)
  larger = embedding(64)[0]
  np.testing.assert_array_equal(larger[0], value[0, 0])  # The class token's is kept.
  rows, columns = larger[1:, 0].reshape(8, 8), larger[1:, 1].reshape(8, 8)
  np.testing.assert_allclose(rows[2:6, 0], np.arange(0.75, 2.5, 0.5), atol=0.05)  # Midway between the old places.
  np.testing.assert_allclose(columns, rows.T, atol=1e-6)
  assert embedding(16).shape == (1, 5, 64)


@pytest.mark.parametrize('extra', [1, 2])
def test_a_position_embedding_of_other_tokens_is_refused(extra, read):
  value = np.zeros((1, 17 + extra, 64))
  found = read(tensors_of('timm_vit', pos_embed=value))
  with pytest.raises(UserError, match=rf"'pos_embed' is \(1, {17 + extra}, 64\) there, and pos_embed \(1, 17, 64\)"):
    found.variables(shapes('timm_vit'))


def test_an_embedding_for_another_map_is_refused(read):
  names = [(f'output_layer.{i}.{leaf}', (32,)) for i in (0, 4)
           for leaf in ('weight', 'bias', 'running_mean', 'running_var')]
  names += [('output_layer.3.weight', (32, 32 * 4)), ('output_layer.3.bias', (32,))]
  tensors = {name: value for name, (_, value) in drawn('face_evolve_ir')[1].items()}
  found = read(tensors | {name: np.ones(shape) for name, shape in names})
  variables, dropped = found.variables(shapes_at(CASES['face_evolve_ir'], 32, embedding=True))
  assert not dropped and variables['params']['output_layer_3']['kernel'].shape == (128, 32)
  with pytest.raises(UserError, match=r"'output_layer.3.weight' is \(32, 128\) there, and output_layer_3/kernel "
                     r'\(288, 32\) here'):
    found.variables(shapes_at(CASES['face_evolve_ir'], 48, embedding=True))
