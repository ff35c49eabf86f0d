"""Files of every family of pretrained weights, made torch-free from the shapes of a small backbone.

Names and layouts are those of PyTorch, or of the family. ``CASES`` has at least one file of every family.
"""

import dataclasses
import functools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from fer_jax import registry
from fer_jax.models.norm import EPSILON


def dotted(path):
  """The name of a module in a file: a number behind '_' is one of PyTorch's lists."""
  return '.'.join(re.sub(r'_(\d+)', r'.\1', part) for part in path)


def facenet(path):
  """Here the names of single layers have numbers as well."""
  return '.'.join(re.sub(r'^(repeat_\d|branch\d)_(\d+)$', r'\1.\2', part) for part in path)


def old_mobilenet(path):
  """torchvision's before 0.10, by what it calls a block's layers today."""
  today = {'conv_0_0': 'conv.0', 'conv_0_1': 'conv.1', 'conv_1_0': 'conv.3', 'conv_1_1': 'conv.4', 'conv_2': 'conv.6',
           'conv_3': 'conv.7'}
  if path[0] == 'features_1':
    today |= {'conv_1': 'conv.3', 'conv_2': 'conv.4'}
  return '.'.join(today.get(part, dotted([part])) for part in path)


def vggface(path):
  convolutions = ['1_1', '1_2', '2_1', '2_2', '3_1', '3_2', '3_3', '4_1', '4_2', '4_3', '5_1', '5_2', '5_3']
  places = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
  return 'conv' + convolutions[places.index(int(path[0].removeprefix('features_')))]


def dlib(path):
  """Convolutions and affine layers are counted from the input."""
  kind = {'conv': 'con', 'norm': 'affine'}[path[-1][:-1]]
  return f'{kind}_{2 * int(path[0][6:]) + int(path[-1][-1])}' if len(path) == 2 else f'{kind}_0'


AXES = {4: (3, 2, 0, 1), 2: (1, 0)}  # (h, w, in, out) to (out, in, h, w), and a matrix turned.
LEAVES = {'kernel': 'weight', 'scale': 'weight', 'negative_slope': 'weight', 'mean': 'running_mean',
          'var': 'running_var'}


def torch_like(module):
  """``(path, value) -> name in the file, value there``, for files of PyTorch's form."""
  def put(path, value):
    *modules, leaf = path
    name = '.'.join(filter(None, [module(modules) if modules else '', LEAVES.get(leaf, leaf)]))
    return name, value.transpose(AXES[value.ndim]) if leaf == 'kernel' else value
  return put


def tfjs(path, value):
  """faceres-deep's form: convolutions have taken up the scales of the normalisation behind them."""
  layer, leaf = path
  if leaf == 'kernel' and '_dw_' in layer:
    return f'{layer}/depthwise_kernel', value.transpose(0, 1, 3, 2)
  what = {'kernel': 'convolution/merged_input', 'scale': 'batchnorm_1/mul', 'bias': 'batchnorm_1/sub'}[leaf]
  return f'{layer}/{what}', value


@dataclasses.dataclass(frozen=True)
class Case:
  """A family's file, small.

  Attributes:
    family: its name.
    options: of the backbone, those that the file decides.
    side: of the images.
    beside: {name: shape} of what the file has beside the backbone.
    prefix: of all names.
    put: where and how the file has a leaf of the backbone.
    said: whether the user has to name the family.
    constants: {name: shape} of what a graph has beside its variables.
  """

  family: str
  options: dict
  side: int = 32
  beside: dict = dataclasses.field(default_factory=dict)
  prefix: str = ''
  put: Callable = torch_like(dotted)
  said: bool = False
  constants: dict = dataclasses.field(default_factory=dict)

  @property
  def name(self):
    """That of the backbone."""
    return self.options['name']

  def origin(self, path='weights.file'):
    """What config.init_from would be."""
    return f'{self.family}:{path}' if self.said else path


def linear(name, rows, columns):
  return {f'{name}.weight': (rows, columns), f'{name}.bias': (rows,)}


RESNET = {'name': 'resnet', 'depth': 18, 'width': 4, 'stem': 'standard'}
VIT = {'name': 'vit', 'width': 64, 'heads': 1, 'depth': 4, 'patch': 8}
VGG = {'name': 'vgg', 'width': 4}
FACENET = {'name': 'inception_resnet_v1', 'width': 4}
FACENET_BESIDE = {'last_linear.weight': (64, 224), 'last_bn.weight': (64,), 'last_bn.running_mean': (64,)}
MOBILENET = {'name': 'mobilenet_v2', 'width': 0.1}

CASES = {
    'imagenet_resnet': Case('imagenet_resnet', RESNET, beside=linear('fc', 1000, 32)),
    'imagenet_resnet 34, small': Case('imagenet_resnet', {**RESNET, 'depth': 34, 'stem': 'small'},
                                      beside=linear('fc', 1000, 32)),
    'msceleb_resnet18': Case('msceleb_resnet18', RESNET, prefix='state_dict.', said=True,
                             beside=linear('fc', 1000, 32)),
    'dream_resnet18': Case('dream_resnet18', RESNET, prefix='state_dict.module.',
                           beside={**linear('feature', 8, 32), **linear('fc', 87, 8)}),
    'vggface2_resnet50': Case('vggface2_resnet50', {**RESNET, 'depth': 50, 'form': 'caffe'},
                              beside=linear('fc', 8631, 128)),
    'imagenet_vgg16': Case('imagenet_vgg16', {**VGG, 'batch_norm': False}, beside=linear('classifier.6', 1000, 8)),
    'imagenet_vgg16 bn, timm': Case('imagenet_vgg16', {**VGG, 'batch_norm': True}, beside={
        'pre_logits.fc1.weight': (8, 32, 7, 7), **linear('head.fc', 1000, 8)}),
    'vggface_vgg16': Case('vggface_vgg16', {**VGG, 'batch_norm': False}, put=torch_like(vggface), beside={
        'fc6.weight': (8, 1568), **linear('fc8', 2622, 8)}),
    'imagenet_mobilenet_v2': Case('imagenet_mobilenet_v2', MOBILENET, beside=linear('classifier.1', 1000, 1280)),
    'imagenet_mobilenet_v2, old': Case('imagenet_mobilenet_v2', MOBILENET, put=torch_like(old_mobilenet), said=True),
    'timm_deit': Case('timm_deit', VIT, beside=linear('head', 1000, 64), prefix='model.', said=True),
    'timm_vit': Case('timm_vit', VIT, beside={'head.weight': (21843, 64)}),
    'timm_vit tiny': Case('timm_vit', {'name': 'vit', 'size': 'tiny', 'depth': 4, 'patch': 16},
                          beside={'head.weight': (21843, 192)}),
    'face_evolve_ir': Case('face_evolve_ir', {'name': 'ir', 'depth': 50, 'width': 4}, beside={
        'output_layer.0.weight': (32,), 'output_layer.3.weight': (8, 8)}),
    'facenet_vggface2': Case('facenet_vggface2', FACENET, 80, {**FACENET_BESIDE, **linear('logits', 8631, 64)},
                             put=torch_like(facenet)),
    'facenet_casia': Case('facenet_casia', FACENET, 80, {**FACENET_BESIDE, **linear('logits', 10575, 64)},
                          put=torch_like(facenet)),
    'vggface2_mobilenet_v1': Case('vggface2_mobilenet_v1', {'name': 'mobilenet_v1', 'width': 4}, put=tfjs, beside={
        'feats/kernel': (128, 8), 'age_pred/bias': (100,)}, constants={
            'conv1_relu/Cast': (), 'conv1_relu/Const_1': (), 'global_pooling/Mean/reduction_indices': (2,)}),
    'imagenet_efficientnet_lite0': Case('imagenet_efficientnet_lite0', {'name': 'efficientnet_lite0'},
                                        beside=linear('_fc', 1000, 1280)),
    'foamliu_mobilefacenet': Case('foamliu_mobilefacenet', {'name': 'mobilefacenet', 'width': 4}, beside={
        'gdconv.depthwise.weight': (32, 1, 7, 7), 'gdconv.bn.running_var': (32,), 'conv3.bias': (8,), 'bn.bias': (8,)}),
    'dlib_face': Case('dlib_face', {'name': 'dlib_resnet', 'width': 4}, 110, {'fc_0.weight': (32, 16)},
                      put=torch_like(dlib)),
}


def shapes_at(case, side, **more):
  """Of the variables of a case's backbone, for images of a side and with more options."""
  options = {key: value for key, value in case.options.items() if key != 'name'}
  model = registry.find('models.backbones', case.name)(**options, **more)
  variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False))
  return {kind: variables.get(kind, {}) for kind in ('params', 'batch_stats')}


@functools.cache
def shapes(key):
  """Of the variables of a case's backbone at its size."""
  return shapes_at(CASES[key], CASES[key].side)


@functools.cache
def drawn(key):
  """{path: value} of a case's backbone, and the file that has them: {name behind the prefix: (path, value)}."""
  case, rng = CASES[key], np.random.default_rng(0)
  family = registry.find('models.weights', case.family)
  ours, file = {}, {}
  for kind, tree in shapes(key).items():
    for path, leaf in flatten_dict(tree).items():
      value = rng.normal(size=leaf.shape).astype(np.float32)
      if kind == 'batch_stats' and family.measured:  # In no file: statistics that change nothing.
        value = np.full(leaf.shape, 1 - EPSILON if path[-1] == 'var' else 0.0, np.float32)
      elif case.put is tfjs and path[-1] == 'scale' and '_dw_' not in path[0]:
        value = np.ones(leaf.shape, np.float32)
      else:
        turned = value[:, :, ::-1] if family.bgr == '/'.join(path) else value
        name, there = case.put(path, turned)
        assert name not in file
        file[name] = path, there
      ours[kind, *path] = value
  return ours, file


def tensors_of(key, **changes):
  """The file of a case, with changes of it: a value of None takes a tensor away."""
  case = CASES[key]
  others = {name: np.zeros(shape, np.float32) for name, shape in {**case.beside, **case.constants}.items()}
  found = {name: value for name, (_, value) in drawn(key)[1].items()} | others | changes
  return {case.prefix + name: value for name, value in found.items() if value is not None}
