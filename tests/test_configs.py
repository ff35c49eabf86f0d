"""Every config builds, is locked, and takes a tiny step on every data set it knows."""

import functools
import importlib
import pkgutil

import jax
import numpy as np
import pytest

import configs
from configs import common
from fer_jax import cluster, run, step
from fer_jax.data import stream
from fer_jax.errors import UserError
from tests import faces

SYSTEMS = sorted(m.name for m in pkgutil.iter_modules(configs.__path__) if m.name != 'common' and not m.ispkg)
CASES = [(name, dataset) for name in SYSTEMS if name != 'quickstart' for dataset in common.DATASETS]


def get_config(name, *arguments):
  return importlib.import_module(f'configs.{name}').get_config(*arguments)


@pytest.mark.parametrize('name, arguments', [*((n, (d,)) for n, d in CASES), ('quickstart', ())])
def test_takes_a_step(name, arguments):
  config = get_config(name, *arguments)
  assert config.is_locked
  with config.unlocked():
    config.batch_size, config.image_size, config.data.size = 8, 16, 16
    config.model.backbone.width, config.model.backbone.depth = 4, 10
    config.data.target = 'label'
  source = faces.source(16)
  mesh = cluster.make_mesh(jax.devices()[:1])
  setup = run.make_setup(config, source.classes, 10)
  state = cluster.replicate(setup.initial(), mesh)
  before = jax.device_get(state.params)
  meter = cluster.replicate(step.new_meter(setup.recipe.terms), mesh)
  train_step = cluster.parallel(functools.partial(step.train_step, setup.recipe), mesh, config.parallel)
  batches = stream.training_batches(source, seed=0, batch_size=8, threads=0)
  for _ in range(2):  # The first step of a warm-up has a learning rate of 0.
    state, meter = train_step(state, meter, cluster.place(next(batches), mesh))
  values = jax.device_get(meter)
  assert all(np.isfinite(value) for value in values.values()) and values['steps'] == 2
  assert any((a != b).any() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state.params), strict=True))


@pytest.mark.parametrize('name, dataset', CASES)
def test_the_full_size_config_describes_a_whole_model(name, dataset):
  config = get_config(name, dataset)
  setup = run.make_setup(config, faces.CLASSES, 1000)
  shapes = jax.eval_shape(setup.initial)
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes.params)) > 100_000


def test_baseline_differs_from_pal_in_its_term_alone():
  ours, theirs = get_config('baseline', 'ferplus').to_dict(), get_config('pal', 'ferplus').to_dict()
  del theirs['losses']['pal']
  theirs['name'] = 'baseline'
  assert ours == theirs


def test_unknown_data_set():
  with pytest.raises(UserError, match="unknown data set 'ferpluss'; did you mean 'ferplus'"):
    get_config('pal', 'ferpluss')
