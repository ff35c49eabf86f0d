"""Where training starts: what pretrained weights decide of a config, what a run writes down, and what is refused."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from fer_jax.data.augment import MEAN, STD
from fer_jax.errors import UserError
from fer_jax.models.backbones.resnet import ResNet
from fer_jax.reports.page import write_report
from fer_jax.reports.runs import collect, grouped, protocol
from fer_jax.runtime import cluster
from fer_jax.training import loop, plan, setup, start
from fer_jax.training.data import Data
from tests import faces

WIDTH = 4


def resnet_file(path, seed=0):
  """Writes a ResNet-18 of width 4 in torchvision's form, with a classifier of ImageNet's classes."""
  shapes = jax.eval_shape(lambda: ResNet(width=WIDTH).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False))
  rng, tensors = np.random.default_rng(seed), {'fc.weight': np.zeros((1000, 8 * WIDTH), np.float32)}
  names = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
  for kind in ('params', 'batch_stats'):
    for place, leaf in flatten_dict(shapes[kind], sep='/').items():
      *modules, last = place.split('/')
      value = rng.uniform(0.5, 1.0, leaf.shape).astype(np.float32) * (0.1 if last == 'kernel' else 1)
      name = '.'.join([*(module.replace('_', '.') for module in modules), names[last]])
      tensors[name] = value.transpose(3, 2, 0, 1) if last == 'kernel' else value
  np.savez(path, **tensors)
  return tensors


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  path = tmp_path_factory.mktemp('weights') / 'resnet18.npz'
  resnet_file(path)
  return path


@pytest.fixture(autouse=True)
def splits(monkeypatch):
  made = {'train': faces.source(24, seed=0), 'valid': faces.source(9, seed=1), 'test': faces.source(10, seed=2)}
  monkeypatch.setattr(Data, 'open', lambda self, split: made[split])
  start._read.cache_clear()


def config(weights, **changes):
  return faces.config(init_from=str(weights), init_decides=('backbone', 'normalise'), image_size=32, data__size=16,
                      data__holdout='', explain=ConfigDict(), **changes)


def test_weights_decide_backbone_normalisation_and_size(weights):
  made = faces.config(init_from=str(weights))
  told = start.settle(made)
  assert made.model.backbone.to_dict() == {'name': 'resnet', 'depth': 18, 'width': 4, 'stem': 'standard',
                                           'large_maps': False}  # The last is not theirs to decide.
  assert (made.normalise.mean, made.normalise.std, made.image_size) == (MEAN, STD, 224)
  assert told[0] == 'Starts from ResNet (torchvision, timm) (resnet18.npz).'
  assert [line.partition(':')[0] for line in told[1:]] == [
      f'The weights decide config.{key}' for key in ('normalise.mean', 'normalise.std', 'image_size', 'model.backbone')]
  assert start.settle(made) == told[:1]  # Settled before, as on a second start: nothing changes.


def test_the_command_line_goes_before_the_weights(weights):
  made = faces.config(init_from=str(weights), image_size=96, normalise__mean=(0.1, 0.2, 0.3))
  told = start.settle(made, ['--config.image_size=96', '--config.normalise.mean=(0.1, 0.2, 0.3)'])
  assert (made.image_size, made.normalise.mean, made.normalise.std) == (96, (0.1, 0.2, 0.3), STD)
  assert told[-1].startswith('config.normalise is not that of the weights: mean (0.485, 0.456, 0.406)')


def test_a_config_may_keep_what_weights_would_decide(weights):
  made = faces.config(init_from=str(weights), init_decides=('backbone',))
  before = made.normalise.to_dict(), made.image_size
  start.settle(made)
  assert (made.normalise.to_dict(), made.image_size) == before and made.model.backbone.depth == 18


@pytest.mark.parametrize('changes, overrides, message', [
    ({'init_decides': ('backbones',)}, (), r"config\.init_decides has 'backbones'; did you mean 'backbone'"),
    ({'model__backbone__width': 16}, ('--config.model.backbone.width=16',),
     r'--config\.model\.backbone\.width=16: the weights in resnet18\.npz are a resnet with width 4; leave the option')])
def test_what_cannot_be_decided_is_told(weights, changes, overrides, message):
  with pytest.raises(UserError, match=message):
    start.settle(faces.config(init_from=str(weights), **changes), overrides)


def test_another_backbone_is_replaced_whole(weights):
  made = faces.config(init_from=str(weights))
  with made.unlocked():
    made.model.backbone = ConfigDict({'name': 'vgg', 'last_pool': False})
  start.settle(made)
  assert made.model.backbone.to_dict() == {'name': 'resnet', 'depth': 18, 'width': 4, 'stem': 'standard'}


def test_a_config_without_weights_stays_as_it_is():
  made = faces.config()
  assert start.settle(made) == [] and made.to_dict() == faces.config().to_dict()


def test_a_run_decides_the_normalisation_alone(finished):
  made = faces.config(init_from=str(finished[0]))
  assert [line.partition(':')[0] for line in start.settle(made)] == [
      'The run decides config.normalise.mean', 'The run decides config.normalise.std']
  assert made.to_dict() == faces.config(init_from=str(finished[0]), normalise__mean=MEAN, normalise__std=STD).to_dict()
  with pytest.raises(UserError, match='nowhere holds no run'):
    start.settle(faces.config(init_from='nowhere'))


def test_dlibs_network_starts_with_the_statistics_of_the_first_batches(monkeypatch):
  pytest.importorskip('dlib', reason='the extra landmarks is not installed')
  made = faces.config(init_from='dlib', init_decides=('backbone', 'normalise'), image_size=55, explain=ConfigDict())
  with made.unlocked():
    made.model.backbone = ConfigDict({'name': 'dlib_resnet', 'last': False})
  start.settle(made)
  mesh = cluster.make_mesh(jax.devices()[:1])
  system = setup.make_system(made, faces.CLASSES, 4)
  opened = start.open_start('dlib', jax.eval_shape(system.initial), mesh)
  images = np.random.default_rng(0).integers(0, 256, (5, 4, 16, 16, 1), np.uint8)
  batches = [{'image': image, 'landmarks': np.zeros((4, 68, 2), np.float32)} for image in images]
  measured = opened.measure(system.recipe, iter(batches), mesh)
  first = measured.variables['batch_stats']['backbone']['norm1']
  shown = (images[:4].reshape(-1, 16, 16, 1) / 255)  # Four batches, and no more.
  seen = jax.image.resize(shown, (16, 55, 55, 1), 'bilinear')
  normal = (np.repeat(seen, 3, -1) - np.float32(made.normalise.mean)) / np.float32(made.normalise.std)
  layer = opened.variables['params']['backbone']['conv1']
  answer = jax.lax.conv_general_dilated(normal, layer['kernel'], (2, 2), 'VALID',
                                        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  np.testing.assert_allclose(first['mean'], np.mean(answer + layer['bias'], axis=(0, 1, 2)), atol=2e-4)
  assert opened.facts['family'] == 'dlib_face' and any(name.startswith('fc.') for name in opened.facts['dropped'])


def test_a_file_that_lacks_a_tensor_is_refused_before_the_first_step(tmp_path, weights):
  tensors = dict(np.load(weights))
  del tensors['layer3.1.bn2.bias']
  np.savez(tmp_path / 'less.npz', **tensors)
  with pytest.raises(UserError, match=r"less\.npz does not fit the backbone 'resnet' exactly.*missing: "
                                      r'layer3_1/bn2/bias'):
    loop.train(config(tmp_path / 'less.npz'), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.fixture(scope='module')
def finished(weights, tmp_path_factory):
  """A run of three steps whose backbone stays as the file has it, and its result."""
  made = {'train': faces.source(24, seed=0), 'valid': faces.source(9, seed=1), 'test': faces.source(10, seed=2)}
  workdir = tmp_path_factory.mktemp('run') / 'started'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Data, 'open', lambda self, split: made[split])
    result = loop.train(config(weights, finetune__frozen='stage4', losses__pal__weight=0.0), workdir)
  return workdir, result


def test_a_run_writes_down_what_it_started_from(finished, weights):
  workdir, result = finished
  record = json.loads((workdir / 'run.json').read_text())['start']
  digest = hashlib.sha256(weights.read_bytes()).hexdigest()
  assert record == {'file': 'resnet18.npz', 'sha256': digest, 'family': 'imagenet_resnet',
                    **{key: record[key] for key in ('title', 'origin', 'licence', 'training_data')},
                    'dropped': ['fc.weight'], 'outside': 0}
  assert 'ImageNet' in record['training_data'] and result['protocol']['start'] == record
  assert not result['protocol']['leaky']


def test_what_it_started_from_stands_in_tables_and_on_the_page(finished):
  workdir, result = finished
  said = f"ResNet (torchvision, timm) (resnet18.npz, sha256 {result['protocol']['start']['sha256'][:12]}"
  runs, _ = collect([str(workdir)])
  assert f'from {said}' in protocol(runs)
  assert f'started from {said}' in write_report(workdir).read_text()


def test_rows_of_other_weights_are_other_rows(finished):
  runs, _ = collect([str(finished[0])])
  other = json.loads(json.dumps(runs[0].result))
  other['protocol']['start']['sha256'] = 'f' * 64
  moved = type(runs[0])('elsewhere', runs[0].config, runs[0].record, other)
  assert len(grouped([runs[0], moved])[0]) == 2


def test_frozen_weights_and_their_statistics_are_the_files(finished, weights):
  trained = setup.load(str(finished[0]), cluster.make_mesh(jax.devices()[:1]))
  tensors, own = np.load(weights), trained.variables
  np.testing.assert_array_equal(own['params']['backbone']['layer4_1']['conv2']['kernel'],
                                tensors['layer4.1.conv2.weight'].transpose(2, 3, 1, 0))
  np.testing.assert_array_equal(own['batch_stats']['backbone']['bn1']['var'], tensors['bn1.running_var'])


def test_a_run_goes_on_from_the_weights_that_it_began_with_only(finished, weights, tmp_path):
  workdir = finished[0]
  assert 'finished' in json.loads((workdir / 'run.json').read_text())
  record = json.loads((workdir / 'run.json').read_text())
  from fer_jax.training.workdir import check_start
  with pytest.raises(UserError, match=r'config\.init_from: what it names is no longer what this run began with '
                                      r'\(sha256 \w+ then, 0 now\)'):
    check_start(record, {**record['start'], 'sha256': '0'})


def test_plans_of_weights_trace_like_any_other(weights):
  made = config(weights)
  start.settle(made)
  planned = plan.make_plan(made, cluster.make_mesh(jax.devices()[:1]))
  kernel = planned.initial().params['backbone']['conv1']['kernel']
  np.testing.assert_array_equal(kernel, np.load(weights)['conv1.weight'].transpose(2, 3, 1, 0))
