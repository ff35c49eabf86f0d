"""Our training step beside a plain PyTorch step of the same network, loss and batch, in turns, on this machine.

Both start from the same parameters and see the same drawn faces, which lie on the device, without random augmentation:
cast, crop (RAN), normalise, forward, backward, SGD. On CPU both compute in float32 with as many threads as there are
cores; on a GPU both in bfloat16, PyTorch compiled and with channels last.
"""

import functools
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from rich.table import Table
from scipy.stats import bootstrap

from fer_jax.analysis.speed import in_turns
from fer_jax.data import face
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.errors import UserError
from fer_jax.landmarks.heatmap import landmark_heatmap
from fer_jax.landmarks.regions import region_boxes
from fer_jax.models.backbones.resnet import STAGES
from fer_jax.runtime import cluster
from fer_jax.runtime.progress import progress
from fer_jax.training import config_files, setup, step

SYSTEMS = ('baseline', 'pal', 'ran')  # Names of configs.
BATCHES = {'cpu': {48: 32, 112: 16, 224: 8}, 'gpu': {48: 512, 112: 256, 224: 64}}  # Faces of a step, by pixels.
# How PyTorch computes, by what the table calls it: arguments of ``peer_torch.Peer``.
FORMS = {'cpu': {'PyTorch': {'device': 'cpu'}, 'channels last': {'device': 'cpu', 'channels_last': True}},
         'gpu': {'PyTorch compiled': {'device': 'cuda', 'channels_last': True, 'fast': True}}}
CLASSES = face.EXPRESSIONS[:7]


def make_config(system: str, size: int, batch: int, width: int = 64, depth: int = 18) -> ConfigDict:
  """The config ``system`` with a ResNet of a width at a size: the small stem below 64 pixels, nothing random."""
  config = config_files.load_config(f'configs/{system}.py:synthetic_faces')
  with config.unlocked():
    config.image_size, config.data.size, config.batch_size = size, size, batch
    config.model.backbone.update({'name': 'resnet', 'depth': depth, 'width': width,
                                  'stem': 'small' if size < 64 else 'standard', 'large_maps': False})
    config.augment = ConfigDict({'flip': 0.0})
    config.ema, config.variables = 0.0, 'trained'
    config.optimizer.update({'learning_rate': 0.01, 'schedule': 'constant', 'warmup': 0.0})
  return config


def draw_batch(count: int, size: int) -> dict[str, np.ndarray]:
  """A host batch (see ``data/reading/streams.py``) of drawn faces, the classes in turns."""
  faces = [draw_face(np.random.default_rng(i), CLASSES[i % len(CLASSES)], size) for i in range(count)]
  label = np.arange(count, dtype=np.int32) % len(CLASSES)
  landmarks = np.stack([one.landmarks for one in faces]) / np.float32(size)
  return {'image': np.stack([one.image for one in faces]), 'label': label,
          'target': np.eye(len(CLASSES), dtype=np.float32)[label], 'landmarks': landmarks,
          'landmark_source': np.full(count, face.LANDMARK_SOURCES.index('exact'), np.int32),
          'landmark_heatmap': np.stack([landmark_heatmap(points, face.MAP_SIZE) for points in landmarks]),
          'mask': np.ones(count, bool), 'row': np.arange(count, dtype=np.int32),
          'triplet': np.full(count, -1, np.int32)}


class Ours:
  """Our step of a config on a batch, compiled; ``params`` {path: array} are what it starts from."""

  def __init__(self, config: ConfigDict, batch: dict[str, np.ndarray]):
    mesh = cluster.make_mesh(jax.local_devices()[:1])
    system = setup.make_system(config, CLASSES, 1000)
    state = system.initial()
    self.params = jax.device_get(flatten_dict(state.params, sep='/'))
    self._batch = cluster.place(batch, mesh)
    self._held = [cluster.replicate(state, mesh), cluster.replicate(step.new_meter(system.recipe.terms), mesh)]
    parallel = cluster.parallel(functools.partial(step.train_step, system.recipe), mesh, config.parallel)
    self._step = parallel.lower(*self._held, {}, self._batch).compile()

  def take(self, steps: int) -> dict[str, float]:
    """Takes steps, waits for them and returns the sums of ``step.new_meter`` since the first one."""
    for _ in range(steps):
      self._held[:] = self._step(*self._held, {}, self._batch)
    return {name: float(value) for name, value in jax.block_until_ready(self._held)[1].items()}


def find_torch() -> Any:
  """The module ``peer_torch``.

  Raises:
    UserError: PyTorch is not installed, or cannot use the device that JAX uses.
  """
  if not importlib.util.find_spec('torch'):
    raise UserError("--peer=torch: PyTorch is not installed; pip install '.[torch]'.")
  from fer_jax.analysis import peer_torch
  if jax.default_backend() not in ('cpu', 'gpu'):
    raise UserError(f'--peer=torch: PyTorch does not run on {jax.default_backend()}; JAX_PLATFORMS=cpu measures on '
                    'the CPU.')
  if jax.default_backend() == 'gpu' and not peer_torch.has_gpu():
    raise UserError('--peer=torch: JAX uses a GPU and this PyTorch cannot; JAX_PLATFORMS=cpu measures on the CPU.')
  peer_torch.prepare(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1)
  return peer_torch


def make_peer(config: ConfigDict, params: dict[str, np.ndarray], batch: dict[str, np.ndarray], **options: Any) -> Any:
  """The ``peer_torch.Peer`` of the config ``make_config`` made, starting from our parameters.

  Args:
    options: 'channels_last', 'fast' and 'device' of ``Peer``.
  """
  backbone, regions = config.model.backbone, config.regions.to_dict()
  boxes = region_boxes(batch['landmarks'][0], np.zeros((0, 3)), **regions)
  return find_torch().Peer(
      config.name, STAGES[backbone.depth], backbone.width, backbone.stem, params, batch, boxes, config.normalise.mean,
      config.normalise.std, config.losses.get('region_bias', {}).get('margin', 0.0), config.optimizer, **options)


def peer_table(sizes: Sequence[int], batches: Sequence[int], rounds: int, steps: int,
               systems: Sequence[str] = SYSTEMS) -> Table:
  """Seconds of a training step, ours over PyTorch's, with bootstrap intervals of the median of the rounds.

  On CPU PyTorch takes its turn twice: with images as they lie by default, and with channels last.

  Args:
    sizes: sides of the images in pixels.
    batches: faces of a step at each of them; empty: those of ``BATCHES``.
    steps: of each in a round.

  Raises:
    UserError: PyTorch is not there, or not one batch for each size.
  """
  torch, platform = find_torch(), jax.default_backend()
  batches = batches or [BATCHES[platform][size] for size in sizes if size in BATCHES[platform]]
  if len(sizes) != len(batches):
    raise UserError(f'--batches: give a number of faces for each of --sizes={",".join(map(str, sizes))}.')
  forms = FORMS[platform]
  of_forms = [column for form in forms for column in (f'{form}, s', 'ours over it', '95 % of the median')]
  where = f'{"one of " if jax.device_count() > 1 else ""}{cluster.hardware()}'
  table = Table('system', 'pixels', 'faces', 'ours, s', *of_forms, "loss, ours and PyTorch's",
                title=f'A training step beside PyTorch {torch.VERSION}: {rounds} rounds of {steps} in turns on {where}')
  noise = 0.0
  cells = [(system, size, batch) for size, batch in zip(sizes, batches, strict=True) for system in systems]
  for system, size, batch in progress(cells, desc='--peer', unit='cell'):
    config, faces = make_config(system, size, batch), draw_batch(batch, size)
    ours = Ours(config, faces)
    both = [ours, *(make_peer(config, ours.params, faces, **options) for options in forms.values())]
    loss, other, *_ = (one.take(1)['loss'] for one in both)
    for one in both:
      one.take(1)
    seconds = in_turns([lambda _, one=one: one.take(steps) for one in both], rounds) / steps
    noise = max(noise, (seconds.max(axis=0) / seconds.min(axis=0)).max())
    medians = np.median(seconds, axis=0)
    row = [f'{medians[0]:.3g}']
    for median, ratios in zip(medians[1:], (seconds[:, :1] / seconds[:, 1:]).T, strict=True):
      ends = bootstrap((ratios,), np.median, n_resamples=10_000, method='percentile', rng=0).confidence_interval
      row += [f'{median:.3g}', f'{np.median(ratios):.2f}', f'{ends.low:.2f} to {ends.high:.2f}']
    table.add_row(system, str(size), str(batch), *row, f'{loss:.4f} {other:.4f}')
  table.caption = f'Noise: the slowest round took {noise:.2f} times the fastest.'
  return table
