"""How fast steps are, data are read and faces are prepared on this machine, and what steps would cost on many devices.

All is measured in turns, because machines drift, and compared round by round.
"""

import functools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich.table import Table
from scipy.stats import bootstrap

from fer_jax import registry
from fer_jax.data import face
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.pixels import decode
from fer_jax.data.preparing import preparation
from fer_jax.data.reading.splits import Split
from fer_jax.errors import UserError
from fer_jax.landmarks.detect import detector
from fer_jax.models.classifier import computing_dtype
from fer_jax.models.convolution import convolve
from fer_jax.runtime import cluster, scaling
from fer_jax.training import setup, step
from fer_jax.training.plan import make_plan
from fer_jax.training.start import settle

# Sides and channels of maps, reach of the kernel, filters, stride, whether each channel is on its own; as in the nets.
CONVOLUTIONS = ((56, 128, 3, 128, 1, True), (56, 128, 3, 128, 2, True), (14, 256, 3, 256, 1, True),
                (14, 240, 5, 240, 1, True), (1, 512, 3, 512, 1, False), (2, 512, 3, 512, 1, False),
                (4, 256, 3, 512, 2, False), (4, 256, 3, 256, 1, False), (56, 64, 1, 128, 1, False),
                (14, 128, 1, 256, 1, False), (28, 64, 1, 128, 2, False))
DEVICES = (8, 64, 256, 1024)  # What steps are modelled on; the first is how many they are compiled for.


def in_turns(work: Sequence[Callable[[int], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
             ) -> np.ndarray:
  """Seconds (rounds, len(work)) by ``clock`` of pieces of work, each called with the number of the round.

  The order turns round by round, so that drift cancels.
  """
  seconds = np.zeros((rounds, len(work)))
  for r in range(rounds):
    for i in np.roll(np.arange(len(work)), r):
      began = clock()
      work[i](r)
      seconds[r, i] = clock() - began
  return seconds


def steps_table(configs: Mapping[str, ConfigDict], rounds: int, steps: int) -> Table:
  """Times of ``steps`` training steps as ratios to those of the first config, with bootstrap intervals of the median.

  FLOPs are the compiler's count. Data alone is the pipeline without steps, and without a cache.

  Raises:
    UserError: fewer than two configs, or a bad one.
  """
  if len(configs) < 2:
    raise UserError('--configs needs at least two different configs to compare.')
  work, sizes, flops, pipelines = zip(*map(_prepare, configs.values()), strict=True)
  for take in work:
    take(1)
  seconds = in_turns([lambda _, take=take: take(steps) for take in work], rounds)
  spread = (seconds.max(axis=0) / seconds.min(axis=0)).max()
  table = Table('config', 'step time ratio', '95 % of the median', 'FLOPs ratio', 'GFLOP/image', 'images/s',
                'data alone, images/s', title=f'{rounds} rounds of {steps} steps in turns on {cluster.hardware()}',
                caption=f'Noise: the slowest round of a config took {spread:.2f} times its fastest.')
  for i, name in enumerate(configs):
    ratios = seconds[:, i] / seconds[:, 0]
    ends = bootstrap((ratios,), np.median, n_resamples=10_000, method='percentile', rng=0).confidence_interval
    table.add_row(name, f'{np.median(ratios):.3f}', f'{ends.low:.3f} to {ends.high:.3f}' if i else '-',
                  f'{flops[i] / flops[0]:.4f}', f'{flops[i] / sizes[i] / 1e9:.3f}',
                  f'{steps * sizes[i] / np.median(seconds[:, i]):.0f}', f'{pipelines[i]:.0f}')
  return table


def _prepare(config: ConfigDict) -> tuple[Callable[[int], None], int, float, float]:
  """A function that takes so many steps and waits for them; faces and FLOPs of a step; faces a second of data alone."""
  mesh = cluster.make_mesh()
  settle(config)
  plan = make_plan(config, mesh)
  batches = plan.batches()
  batch = cluster.place(next(batches), mesh)
  began, count = time.perf_counter(), 0
  while (elapsed := time.perf_counter() - began) < 2.0:
    next(batches)
    count += plan.batch_size
  held = [cluster.replicate(plan.initial(), mesh), cluster.replicate(plan.new_meter(), mesh)]
  compiled = plan.train_step.lower(*held, plan.frozen, batch).compile()

  def take(steps: int) -> None:
    for _ in range(steps):
      held[:] = jax.block_until_ready(compiled(*held, plan.frozen, batch))

  return take, plan.batch_size, compiled.cost_analysis()['flops'], count / elapsed


def convolutions_table(rounds: int, cases: Sequence[tuple] = CONVOLUTIONS, batch: int = 32) -> Table:
  """Times of single convolutions, forward and back: XLA's, and the form that ``models.convolution`` has for the CPU.

  Raises:
    UserError: this is no CPU.
  """
  if jax.default_backend() != 'cpu':
    raise UserError(f"--convolutions: on {jax.default_backend()} all convolutions are XLA's; JAX_PLATFORMS=cpu "
                    'measures on the CPU.')
  table = Table('x', 'kernel', 'stride', "XLA's, ms", 'other form, ms', 'times as fast', 'lowest and highest ratio',
                title=f'Forward and back, {rounds} rounds in turns on {cluster.hardware()}')
  for side, channels, reach, filters, stride, alone in cases:
    x = jnp.ones((batch, side, side, channels))
    kernel = jnp.ones((reach, reach, 1 if alone else channels, filters))

    def take(form: Callable, x: jax.Array = x, kernel: jax.Array = kernel, stride: int = stride,
             groups: int = channels if alone else 1) -> Callable[[int], Any]:
      apply = lambda *at: form(*at, (stride, stride), ((kernel.shape[0] // 2,) * 2,) * 2, feature_group_count=groups,
                               dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
      both = jax.jit(lambda *at: (lambda value, pull: (value, pull(value)))(*jax.vjp(apply, *at)))
      jax.block_until_ready(both(x, kernel))
      return lambda _: jax.block_until_ready(both(x, kernel))

    seconds = in_turns([take(jax.lax.conv_general_dilated), take(convolve)], rounds)
    ratios, medians = seconds[:, 0] / seconds[:, 1], 1e3 * np.median(seconds, axis=0)
    table.add_row(' x '.join(map(str, x.shape)), ' x '.join(map(str, kernel.shape)), str(stride),
                  *(f'{median:.2f}' for median in medians), f'{np.median(ratios):.1f}',
                  f'{ratios.min():.1f} to {ratios.max():.1f}')
  return table


def faces_table(split: Split, rounds: int, count: int = 100) -> Table:
  """Faces a second on one core, of a split that caches nothing: read and decoded, and their landmarks found.

  Every round is about the next ``count`` faces.
  """
  look = detector()
  rows = [[i % len(split) for i in range(r * count, (r + 1) * count)] for r in range(rounds)]
  images = [[decode(split.records[row]) for row in some] for some in rows]
  work = {'reading a record and decoding image and maps': lambda r: [split.example(row) for row in rows[r]],
          'landmarks, the face looked for': lambda r: [look(image) for image in images[r]],
          'landmarks, the whole image as the face': lambda r: [look(image, look=False) for image in images[r]]}
  threads = cv2.getNumThreads()
  cv2.setNumThreads(1)
  rates = count / in_turns(list(work.values()), rounds)
  cv2.setNumThreads(threads)
  table = Table('on one core', 'faces/s, median', 'slowest and fastest round',
                title=f'{rounds} rounds of {count} faces of {split.size} px in turns on {cluster.hardware()}')
  for what, values in zip(work, rates.T, strict=True):
    table.add_row(what, f'{np.median(values):,.0f}', f'{values.min():,.0f} to {values.max():,.0f}')
  return table


def preparation_table(workers: Sequence[int], rounds: int, faces: int = 2_000) -> Table:
  """How fast a folder of drawn faces of 64 px is prepared, landmarks looked for, by these numbers of processes."""
  with tempfile.TemporaryDirectory() as folder:
    for i in range(faces):
      name = face.EXPRESSIONS[i % 7]
      file = Path(folder, 'files', 'train', name, f'{i:06d}.png')
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_bytes(face.png(draw_face(np.random.default_rng(i), name, 64).image).getvalue())

    prepare = lambda number: preparation.prepare(preparation.make_builder(
        'faces_folder', None, tempfile.mkdtemp(dir=folder), source=f'{folder}/files', workers=number,
        classes=list(face.EXPRESSIONS[:7])))
    seconds = in_turns([lambda _, number=number: prepare(number) for number in workers], rounds)
  table = Table('processes', 'faces/s', f'times as fast as {workers[0]}', 'lowest and highest ratio',
                title=f'{faces:,} drawn faces prepared, {rounds} rounds in turns on {cluster.hardware()}')
  for number, taken in zip(workers, seconds.T, strict=True):
    ratios = seconds[:, 0] / taken
    table.add_row(str(number), f'{faces / np.median(taken):,.0f}', f'{np.median(ratios):.2f}',
                  f'{ratios.min():.2f} to {ratios.max():.2f}')
  return table


def compile_step(config: ConfigDict, mesh: jax.sharding.Mesh) -> tuple[jax.stages.Compiled, int]:
  """Compiles the training step of ``config`` for ``mesh`` from shapes alone; returns it and the number of parameters.

  A teacher that the config does not name is of the student's own form.
  """
  cluster.check_batch(config.batch_size, mesh)
  classes = tuple(config.data.classes) or registry.find('data.builders', config.data.dataset).CLASSES
  classes = classes or face.EXPRESSIONS  # Of a folder of faces nobody knows them.
  size, maps = config.data.size, ['landmark_heatmap', 'action_unit_map']
  maps += [name for name in ('action_unit_generic_map', 'action_unit_random_map') if config.data.maps[name]]
  fields = {'image': ((size, size, config.data.channels or 3), 'uint8'), 'target': ((len(classes),), 'float32'),
            'landmarks': ((68, 2), 'float32'), 'mask': ((), 'bool'),
            **{name: ((), 'int32') for name in ('label', 'landmark_source', 'row', 'triplet')},
            **{name: ((face.MAP_SIZE, face.MAP_SIZE), 'uint8') for name in maps}}
  batch = {name: jax.ShapeDtypeStruct((config.batch_size, *shape), dtype) for name, (shape, dtype) in fields.items()}
  teacher = setup.load(config.teacher.workdir, mesh) if config.teacher.workdir else None
  if not teacher and any(term.loss == 'distillation' for term in config.losses.values()):
    system = setup.make_system(config, classes, 1000)
    teacher = setup.Trained(None, setup.make_protocol(config), {'classes': classes}, system,
                            jax.eval_shape(system.initial).variables(), 0, lambda: [])
  system = setup.make_system(config, classes, 1000, teacher)
  state = jax.eval_shape(system.initial)
  train_step = cluster.parallel(functools.partial(step.train_step, system.recipe), mesh, config.parallel)
  held = state, step.new_meter(system.recipe.terms), teacher.variables if teacher else {}
  lowered = train_step.lower(*cluster.shapes(held, mesh), cluster.shapes(batch, mesh, rows=True))
  return lowered.compile(), sum(leaf.size for leaf in jax.tree.leaves(state.params))


def scaling_tables(configs: Mapping[str, ConfigDict], utilisation: float) -> list[Table]:
  """What the steps of configs send between devices, counted, and their efficiency on ``DEVICES``, modelled.

  A device is taken to attain the share ``utilisation`` of its peak, in (0, 1].
  """
  mesh = cluster.make_mesh()
  counted = Table('config', 'parameters', 'rows/device', 'GFLOP/device', 'all-reduces', 'MB', 'other collectives',
                  title=f'The compiled step on {mesh.size} devices')
  modelled = Table('config', 'on', *(f'{n:,} devices' for n in DEVICES),
                   title='Modelled, not measured: efficiency if gradients travel during the backward pass (if they are '
                         f'waited for), at the same rows/device, with {utilisation:.0%} of the peak')
  for name, config in configs.items():
    compiled, parameters = compile_step(config, mesh)
    found = scaling.collectives(compiled.as_text())
    reduced = found.pop('all-reduce')
    dtype = computing_dtype(config.model.dtype, 'tpu')  # As on the hardware that is modelled.
    one = scaling.Step(compiled.cost_analysis()['flops'], dtype, parameters, reduced)
    others = ', '.join(f'{total.count} {kind}, {total.size / 1e6:.3f} MB' for kind, total in found.items()) or 'none'
    counted.add_row(name, f'{parameters:,}', str(config.batch_size // mesh.size), f'{one.flops / 1e9:,.2f}',
                    str(reduced.count), f'{reduced.size / 1e6:.2f}', others)
    for kind, hardware in scaling.HARDWARE.items():
      expected = [[scaling.efficiency(one, n, hardware, utilisation, overlap) for overlap in (True, False)]
                  for n in DEVICES]
      modelled.add_row(name, kind, *(f'{hidden:.1%} ({waited:.1%})' for hidden, waited in expected))
  return [counted, modelled]
