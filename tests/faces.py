"""A source of noise faces in memory, a config that compiles in seconds, a few steps: what many tests start from."""

import functools
import re
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from configs import pal
from fer_jax.data import face
from fer_jax.data.reading import streams
from fer_jax.data.reading.mixture import Part
from fer_jax.data.reading.rows import Interval, Whole
from fer_jax.data.reading.splits import Split
from fer_jax.data.triplets import triplets_from_labels
from fer_jax.runtime import cluster
from fer_jax.training import setup, step
from tests import traces

CLASSES = face.EXPRESSIONS[:7]


def source(count=48, size=16, seed=0, **options):
  """``count`` faces of noise with a bright spot whose place tells the class, and landmarks around it."""
  rng = np.random.default_rng(seed)
  records = []
  for i in range(count):
    label = i % len(CLASSES)
    image = rng.integers(0, 120, (size, size), dtype=np.uint8)
    x, y = 4 + 3 * (label % 3), 4 + 3 * (label // 3)
    image[y - 1:y + 2, x - 1:x + 2] = 255
    landmarks = np.clip(np.array([x, y]) + rng.normal(0, 1, (68, 2)), 0, size - 1)
    record = face.record(image=face.png(image), name=f'{i}.png', label=label, expression=CLASSES[label],
                         size=(size, size), landmarks=landmarks, source='exact')
    records.append({k: v.getvalue() if hasattr(v, 'getvalue') else v for k, v in record.items()})
  # Each seed is a split of one data set.
  return Split(records, CLASSES, intervals=(Interval(f'{seed}', 0, count),),
               whole=Whole(facts={'all': {'digest': 'noise'}}), **options)


def config(**changes) -> ConfigDict:
  """PAL on 16-pixel faces with a ResNet-10 of width 4; ``changes`` are dotted keys with '__' for '.'."""
  return shrink(pal.get_config('synthetic_faces'), **changes)


def shrink(made: ConfigDict, **changes) -> ConfigDict:
  """Brings any config with a ResNet, MobileFaceNet or dlib's network to this size, and an ARM head to its features."""
  changes = {'batch_size': 8, 'eval_batch_size': 8, 'image_size': 16, 'data__size': 16, 'data__target': 'label',
             'model__backbone__width': 4, 'model__backbone__depth': 10, 'epochs': 1.0, 'log_every': 2, **changes}
  sides = {'dlib_resnet': 55, 'mobilefacenet': 32}  # The least without its last block; 2 x 2 pixels in the last stage.
  if made.model.backbone.name in sides:
    del changes['model__backbone__depth']
    changes['image_size'] = sides[made.model.backbone.name]
  head = made.model.head
  if head.name == 'arm' and head.arrangement:
    changes = {'model__head__block': 4, 'model__head__kernel': 4, 'model__head__stride': 2, **changes}
  elif head.name == 'arm':
    changes = {'model__head__kernel': 2, **changes}
  with made.unlocked():
    for key, value in changes.items():
      node = made
      *path, last = key.split('__')
      for part in path:
        node = node[part]
      node[last] = value
  return made


def drawn(variables):
  """Parameters and statistics at random from their shapes; to draw them as a model does takes seconds to compile."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name = jax.tree_util.keystr(path)
    if leaf.ndim > 1 and 'global_mean' not in name:  # Kernels, by He's rule.
      return rng.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape).astype(leaf.dtype)
    low, high = (0.5, 1.5) if 'var' in name or 'scale' in name or 'alpha' in name else (-0.3, 0.3)
    return rng.uniform(low, high, leaf.shape).astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, variables)


def teacher(config, traced=False):
  """A teacher of the config's own form at its initial parameters, or their shapes; None where no loss wants one."""
  if not any(term.loss == 'distillation' for term in config.losses.values()):
    return None
  system = setup.make_system(config, CLASSES, 20)
  record = {'classes': list(CLASSES), 'commit': 'none', 'steps': 20}
  state = jax.eval_shape(system.initial) if traced else system.initial()
  return setup.Trained(Path('teacher'), setup.make_protocol(config), record, system, state.variables(), 0, lambda: [])


def parts(config, data):
  """What the config's batches hold, every source on ``data``; triplets come from labels."""
  others = []
  for name, options in config.sources.items():
    found = triplets_from_labels(data.labels, len(data.classes), 64) if options.supervision == 'triplets' else None
    others.append(Part(data, options.parts, options.supervision, found, name=name))
  return [Part(data, config.data.parts, order=config.data.order), *others]


def traced_step(config):
  """The jaxpr of the config's step, the form of the state it takes and the forms of the state and meter it returns."""
  taught = teacher(config, traced=True)
  system = setup.make_system(config, CLASSES, 20, taught)
  batch = next(streams.training_batches(parts(config, source(maps=config.data.maps.to_dict())), seed=0,
                                       batch_size=config.batch_size, threads=0))
  like = jax.eval_shape(system.initial)
  trace = jax.make_jaxpr(functools.partial(step.train_step, system.recipe), return_shape=True)
  program, returned = trace(like, step.new_meter(system.recipe.terms), taught.variables if taught else {}, batch)
  return program.jaxpr, like, returned


def assert_traces(config):
  """The step can be traced, which takes a tenth of compiling it, and returns a state of the same form; and nothing but
  the layers of a backbone is computed at the precision an accelerator chooses."""
  program, like, (state, meter) = traced_step(config)
  layers = {f'Classifier/{path[:-len("/kernel")]}' for path in flatten_dict(like.params, sep='/') if '/kernel' in path}
  rounded = {re.sub('.*Classifier', 'Classifier', scope) for scope in traces.rounded(program)}
  assert not rounded - {layer for layer in layers if '/backbone/' in layer}
  forms = lambda tree: [(path, leaf.shape, leaf.dtype) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
  assert forms(state) == forms(like)
  assert meter.keys() > {f'loss/{name}' for name, term in config.losses.items() if term.weight}


def steps(config, count=5, devices=1, data=None, system=None, start=None, frozen=None):
  """Takes ``count`` steps on ``data`` (default: ``source()``), with the config's system, initial state and a teacher's
  variables where they are at hand; returns the state and the meter on the host."""
  data = data or source(maps=config.data.maps.to_dict())
  mesh = cluster.make_mesh(jax.devices()[:devices])
  system = system or setup.make_system(config, data.classes, 20)
  state = cluster.replicate(start or system.initial(), mesh)
  meter = cluster.replicate(step.new_meter(system.recipe.terms), mesh)
  train_step = cluster.parallel(functools.partial(step.train_step, system.recipe), mesh, config.parallel)
  batches = streams.training_batches(parts(config, data), seed=system.recipe.data_seed, batch_size=config.batch_size,
                                    threads=0)
  frozen = cluster.replicate(frozen or {}, mesh)
  for _ in range(count):
    state, meter = train_step(state, meter, frozen, cluster.place(next(batches), mesh))
  return jax.device_get(state), jax.device_get(meter)
