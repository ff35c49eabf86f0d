"""Every config builds, is locked, and has a step, on every data set it knows, with every recipe it has."""

import importlib
import pkgutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import configs
from configs import common
from fer_jax import registry
from fer_jax.errors import UserError
from fer_jax.runtime import storage
from fer_jax.training import ranges, setup
from tests import faces

SYSTEMS = sorted(m.name for m in pkgutil.iter_modules(configs.__path__) if m.name != 'common' and not m.ispkg)
RECIPES = {'baseline': ('', ':accelerator'),  # The others have a paper's beside the small one and the large one.
           'deepfever': (':teacher', ':student', ':accelerator:teacher', ':accelerator:student')}
CASES = [(name, dataset + recipe) for name in SYSTEMS if name != 'quickstart' for dataset in common.DATASETS
         for recipe in RECIPES.get(name, ('', ':accelerator', ':paper'))]
# Data sets differ in their splits, which no model sees, and in sizes: one of each size stands for all.
SIZES = {sets['size']: dataset for dataset, sets in common.DATASETS.items()}


def get_config(name, *arguments):
  return importlib.import_module(f'configs.{name}').get_config(*arguments)


# The tiny step replaces the sizes: one data set stands for all.
@pytest.mark.parametrize('name, arguments', [
    *((n, (a,)) for n, a in CASES if a.startswith('ferplus')), ('quickstart', ())])
def test_has_a_step(name, arguments):
  config = get_config(name, *arguments)
  assert config.is_locked
  faces.assert_traces(faces.shrink(config))


@pytest.mark.parametrize('name, argument', CASES)
def test_every_data_set_is_known_by_its_builder(name, argument):
  data = get_config(name, argument).data
  cls = registry.find('data.builders', data.dataset)
  assert cls.find_variant(data.variant).name == data.variant and data.train and data.test
  for splits in (cls.COUNTS.get(data.variant, {}),):
    assert not splits or {data.train.split('+')[0], data.test} <= splits.keys()


@pytest.mark.parametrize('name, argument', [(n, a) for n, a in CASES if a.partition(':')[0] in SIZES.values()])
def test_the_full_size_config_describes_a_whole_model(name, argument):
  config = get_config(name, argument)
  ranges.check(storage.flat(config.to_dict()))
  system = setup.make_system(config, faces.CLASSES, 1000)
  shapes = jax.eval_shape(system.initial)
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes.params)) > 100_000


@pytest.mark.parametrize('argument', ['ferplus', 'ferplus:accelerator'])
@pytest.mark.parametrize('system, terms, head', [
    ('pal', {'pal'}, 'linear'), ('au_cues', {'au_cues'}, 'linear'), ('ran', {'region_bias'}, 'region_attention'),
    ('arm', set(), 'arm')])
def test_a_system_differs_from_the_baseline_in_its_own_parts_alone(system, terms, head, argument):
  ours, theirs = get_config('baseline', argument).to_dict(), get_config(system, argument).to_dict()
  assert theirs['losses'].keys() - ours['losses'].keys() == terms and theirs['model']['head']['name'] == head
  own = {'name', 'losses', 'regions', 'explain'} | ({'model'} if head != 'linear' else set())
  own |= {'remat'} if system == 'ran' else set()
  assert {key for key in ours if ours[key] != theirs[key]} <= own
  assert ours['model']['backbone'] == theirs['model']['backbone']
  assert (theirs['regions']['scheme'] != 'none') == (system == 'ran')


@pytest.mark.parametrize('dataset', common.DATASETS)
def test_the_accelerators_recipe_is_the_small_one_in_proportion(dataset):
  small, large = (get_config('baseline', dataset + recipe) for recipe in ('', ':accelerator'))
  assert (large.batch_size, large.model.backbone.width, large.model.dtype) == (1024, 64, 'auto')
  assert large.image_size == large.data.size == small.data.size
  times = large.batch_size / small.batch_size
  assert large.optimizer.learning_rate == pytest.approx(times * small.optimizer.learning_rate) == pytest.approx(0.8)
  assert np.log(large.ema) == pytest.approx(times * np.log(small.ema))
  assert large.epochs > 3 * small.epochs and large.epochs * large.optimizer.warmup == pytest.approx(5)
  changed = {key for key, value in storage.flat(large.to_dict()).items() if value != storage.flat(small.to_dict())[key]}
  assert changed - {'image_size'} == {'batch_size', 'eval_batch_size', 'epochs', 'ema', 'model.backbone.width',
                                      'optimizer.learning_rate', 'optimizer.warmup'} - (
      {'optimizer.warmup'} if small.epochs == 20 else set())


# As their authors' code has it, PyTorch's SGD or Adam over all parameters; of PAL's no decay is known.
@pytest.mark.parametrize('name, argument, decayed', [
    ('arm', 'rafdb:paper', 'all'), ('au_cues', 'affectnet:paper', 'all'), ('ran', 'ferplus:paper', 'all'),
    ('pal', 'rafdb:paper', 'none'), ('vit', 'rafdb', 'kernels')])
def test_a_recipe_decays_what_its_source_decayed(name, argument, decayed):
  config = faces.shrink(get_config('baseline' if name == 'vit' else name, argument))
  if name == 'vit':
    with config.unlocked():
      config.model.backbone = {'name': 'vit', 'size': 'tiny', 'patch': 8, 'depth': 4, 'width': 16, 'heads': 2}
  system = setup.make_system(config, faces.CLASSES, 20)
  params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), jax.eval_shape(system.initial).params)
  optimizer = system.recipe.optimizer
  updates, _ = optimizer.update(jax.tree.map(np.zeros_like, params), optimizer.init(params), params)
  sizes = {path: leaf.size for path, leaf in flatten_dict(params, sep='/').items()}
  found = sum(sizes[path] for path, update in flatten_dict(updates, sep='/').items() if (update < 0).all())
  kernels = sum(size for path, size in sizes.items() if path.endswith('/kernel'))
  assert found == {'all': sum(sizes.values()), 'kernels': kernels, 'none': 0}[decayed]
  if name == 'vit':  # 8 x 8 x 3 to 16, four blocks of 12 x 16 x 16, and 16 to 7 classes.
    assert found == 192 * 16 + 4 * 12 * 256 + 16 * 7


def test_unknown_data_set_or_recipe():
  with pytest.raises(UserError, match="unknown data set 'ferpluss'; did you mean 'ferplus'"):
    get_config('pal', 'ferpluss')
  with pytest.raises(UserError, match="unknown recipe 'papre'.*DATASET:paper"):
    get_config('arm', 'ferplus:papre')
  with pytest.raises(UserError, match="'accelerater'; did you mean 'accelerator'.*DATASET:accelerator for its large"):
    get_config('baseline', 'ferplus:accelerater')
  with pytest.raises(UserError, match='no recipe of a paper'):
    get_config('baseline', 'ferplus:paper')
  with pytest.raises(UserError, match="unknown role 'techer'; did you mean 'teacher'"):
    get_config('deepfever', 'ferplus:techer')
  with pytest.raises(UserError, match='no recipe of a paper'):
    get_config('deepfever', 'ferplus:paper')


def test_deepfever_without_a_data_set_is_of_the_synthetic_faces():
  for role in ('teacher', 'student'):
    assert get_config('deepfever', role).to_dict() == get_config('deepfever', f'synthetic_faces:{role}').to_dict()
  assert get_config('deepfever', 'ferplus').name == 'deepfever/teacher'
