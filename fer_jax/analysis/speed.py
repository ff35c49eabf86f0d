"""How fast steps are, data are read and faces are prepared on this machine, and what steps would cost on many devices.

All is measured in turns, because machines drift, and compared round by round. What is said of other hardware is no
measurement but the model of ``runtime/scaling.py``.
"""

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict
from rich.table import Table
from scipy.stats import bootstrap

from fer_jax import registry
from fer_jax.data import face
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.preparing import preparation
from fer_jax.data.reading.pixels import decode
from fer_jax.data.reading.splits import Split
from fer_jax.errors import UserError
from fer_jax.landmarks.detect import detector
from fer_jax.runtime import cluster, scaling
from fer_jax.training import setup, step

DEVICES = (8, 64, 256, 1024)  # What steps are modelled on; the first is how many they are compiled for.


@dataclasses.dataclass
class Contestant:
  """A config ready to step: ``step()`` starts a step and returns something to wait for."""

  name: str
  batch_size: int
  flops: float
  pipeline: float
  step: Callable[[], Any]


def make_contestant(name: str, config: ConfigDict) -> Contestant:
  """Compiles the training step of ``config`` and measures its data pipeline alone, in images a second."""
  mesh = cluster.make_mesh()
  config.data.cache = False  # What reading and decoding cost, not what memory does.
  plan = setup.make_plan(config, mesh)
  batches = plan.batches()
  batch = cluster.place(next(batches), mesh)
  began, count = time.perf_counter(), 0
  while time.perf_counter() - began < 2.0:
    next(batches)
    count += plan.batch_size
  pipeline = count / (time.perf_counter() - began)
  holder = [cluster.replicate(plan.initial(), mesh), cluster.replicate(plan.new_meter(), mesh)]
  compiled = plan.train_step.lower(*holder, plan.frozen, batch).compile()

  def take_step() -> Any:
    holder[:] = compiled(*holder, plan.frozen, batch)
    return holder

  return Contestant(name, plan.batch_size, compiled.cost_analysis()['flops'], pipeline, take_step)


def compare(contestants: Sequence[Contestant], rounds: int, steps: int) -> np.ndarray:
  """Seconds per step (rounds, contestants), taken in turns; the order turns round by round so that drift cancels."""
  for contestant in contestants:
    jax.block_until_ready(contestant.step())
  seconds = np.zeros((rounds, len(contestants)))
  for r in range(rounds):
    for i in np.roll(np.arange(len(contestants)), r):
      began = time.perf_counter()
      for _ in range(steps):
        jax.block_until_ready(contestants[i].step())
      seconds[r, i] = (time.perf_counter() - began) / steps
  return seconds


def steps_table(configs: Mapping[str, ConfigDict], rounds: int, steps: int) -> Table:
  """Step times of configs as ratios to the first, with 95 % bootstrap intervals of the median; FLOPs are XLA's count.

  Raises:
    UserError: fewer than two configs, or a bad one.
  """
  if len(configs) < 2:
    raise UserError('--configs needs at least two different configs to compare.')
  contestants = [make_contestant(name, config) for name, config in configs.items()]
  seconds = compare(contestants, rounds, steps)
  spread = (seconds.max(axis=0) / seconds.min(axis=0)).max()
  table = Table('config', 'step time ratio', '95 % of the median', 'FLOPs ratio', 'GFLOP/image', 'images/s',
                'data alone, images/s', title=f'{rounds} rounds of {steps} steps in turns on {cluster.hardware()}',
                caption=f'Noise: the slowest round of a config took {spread:.2f} times its fastest.')
  for i, c in enumerate(contestants):
    ratios = seconds[:, i] / seconds[:, 0]
    ends = bootstrap((ratios,), np.median, n_resamples=10_000, method='percentile', rng=0).confidence_interval
    table.add_row(c.name, f'{np.median(ratios):.3f}', f'{ends.low:.3f} to {ends.high:.3f}' if i else '-',
                  f'{c.flops / contestants[0].flops:.4f}', f'{c.flops / c.batch_size / 1e9:.3f}',
                  f'{c.batch_size / np.median(seconds[:, i]):.0f}', f'{c.pipeline:.0f}')
  return table


def faces_per_second(split: Split, rounds: int, count: int) -> dict[str, np.ndarray]:
  """Measures on one core what a face costs.

  Args:
    split: one that caches nothing.
    rounds: rounds; in each, every kind of work is done on ``count`` faces.
    count: faces in a round; the next ones in every round.

  Returns:
    Faces a second by kind of work, (rounds,) each.
  """
  look = detector()
  images: list[np.ndarray] = []
  work: Mapping[str, Callable[[int], Any]] = {
      'reading a record and decoding image and maps': split.example,
      'landmarks, the face looked for': lambda i: look(images[i % count]),
      'landmarks, the whole image as the face': lambda i: look(images[i % count], look=False),
  }
  threads = cv2.getNumThreads()
  cv2.setNumThreads(1)
  rates: dict[str, list[float]] = {name: [] for name in work}
  for r in range(rounds):
    rows = [i % len(split) for i in range(r * count, (r + 1) * count)]
    images[:] = [decode(split.records[row]) for row in rows]
    for name, do in work.items():
      began = time.perf_counter()
      for row in rows:
        do(row)
      rates[name].append(count / (time.perf_counter() - began))
  cv2.setNumThreads(threads)
  return {name: np.array(values) for name, values in rates.items()}


def faces_table(split: Split, rounds: int, count: int = 100) -> Table:
  """``faces_per_second``, printed."""
  table = Table('on one core', 'faces/s, median', 'slowest and fastest round',
                title=f'{rounds} rounds of {count} faces of {split.size} px in turns on {cluster.hardware()}')
  for what, values in faces_per_second(split, rounds, count).items():
    table.add_row(what, f'{np.median(values):,.0f}', f'{values.min():,.0f} to {values.max():,.0f}')
  return table


def preparation_seconds(workers: Sequence[int], faces: int, rounds: int) -> np.ndarray:
  """Measures how long a folder of drawn faces takes to be prepared, landmarks looked for.

  Args:
    workers: numbers of processes to compare.
    faces: how many faces of 64 px there are.
    rounds: rounds; in each, every number of processes has its turn.

  Returns:
    Seconds (rounds, len(workers)).
  """
  seconds = np.zeros((rounds, len(workers)))
  with tempfile.TemporaryDirectory() as folder:
    files = Path(folder) / 'files'
    for i in range(faces):
      name = face.EXPRESSIONS[i % 7]
      file = files / 'train' / name / f'{i:06d}.png'
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_bytes(face.png(draw_face(np.random.default_rng(i), name, 64).image).getvalue())
    for r in range(rounds):
      for i in np.roll(np.arange(len(workers)), r):
        with tempfile.TemporaryDirectory() as made:
          builder = preparation.make_builder('faces_folder', None, made, source=str(files), workers=workers[i],
                                             classes=list(face.EXPRESSIONS[:7]))
          began = time.perf_counter()
          preparation.prepare(builder)
          seconds[r, i] = time.perf_counter() - began
  return seconds


def preparation_table(workers: Sequence[int], rounds: int, faces: int = 2_000) -> Table:
  """``preparation_seconds``, printed as ratios to the first number of processes."""
  seconds = preparation_seconds(workers, faces, rounds)
  table = Table('processes', 'faces/s', f'times as fast as {workers[0]}', 'lowest and highest ratio',
                title=f'{faces:,} drawn faces prepared, {rounds} rounds in turns on {cluster.hardware()}')
  for i, number in enumerate(workers):
    ratios = seconds[:, 0] / seconds[:, i]
    table.add_row(str(number), f'{faces / np.median(seconds[:, i]):,.0f}', f'{np.median(ratios):.2f}',
                  f'{ratios.min():.2f} to {ratios.max():.2f}')
  return table


def compile_step(config: ConfigDict, mesh: jax.sharding.Mesh) -> tuple[jax.stages.Compiled, int]:
  """Compiles the training step of ``config`` for ``mesh`` from shapes alone, without data.

  A teacher that the config does not name is of the student's own form.

  Returns:
    The compiled step, and the number of parameters.
  """
  cluster.check_batch(config.batch_size, mesh)
  classes = tuple(config.data.classes) or registry.find('data.builders', config.data.dataset).CLASSES
  classes = classes or face.EXPRESSIONS  # Of a folder of faces nobody knows them.
  size, maps = config.data.size, ['landmark_heatmap', 'action_unit_map']
  maps += ['action_unit_generic_map'] * config.data.maps.action_unit_generic_map
  fields = {'image': ((size, size, config.data.channels or 3), 'uint8'), 'target': ((len(classes),), 'float32'),
            'landmarks': ((68, 2), 'float32'), 'mask': ((), 'bool'),
            **{name: ((), 'int32') for name in ('label', 'landmark_source', 'row', 'triplet')},
            **{name: ((face.MAP_SIZE, face.MAP_SIZE), 'uint8') for name in maps}}
  batch = {name: jax.ShapeDtypeStruct((config.batch_size, *shape), dtype) for name, (shape, dtype) in fields.items()}
  teacher = setup.load(config.teacher.workdir, mesh) if config.teacher.workdir else None
  if not teacher and any(term.loss == 'distillation' for term in config.losses.values()):
    system = setup.make_system(config, classes, 1000)
    teacher = setup.Trained(None, setup.make_protocol(config), {'classes': classes}, system,
                            jax.eval_shape(system.initial).variables(), 0)
  system = setup.make_system(config, classes, 1000, teacher)
  state = jax.eval_shape(system.initial)
  train_step = cluster.parallel(functools.partial(step.train_step, system.recipe), mesh, config.parallel)
  held = state, step.new_meter(system.recipe.terms), teacher.variables if teacher else {}
  lowered = train_step.lower(*cluster.shapes(held, mesh), cluster.shapes(batch, mesh, rows=True))
  return lowered.compile(), sum(leaf.size for leaf in jax.tree.leaves(state.params))


def scaling_tables(configs: Mapping[str, ConfigDict], utilisation: float) -> list[Table]:
  """What the steps of configs send between devices, counted, and their efficiency on ``DEVICES``, modelled.

  Args:
    configs: by name.
    utilisation: the share of its peak that a device is taken to attain, in (0, 1].
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
    one = scaling.Step(compiled.cost_analysis()['flops'], config.model.dtype, parameters, reduced)
    others = ', '.join(f'{total.count} {kind}, {total.size / 1e6:.3f} MB' for kind, total in found.items()) or 'none'
    counted.add_row(name, f'{parameters:,}', str(config.batch_size // mesh.size), f'{one.flops / 1e9:,.2f}',
                    str(reduced.count), f'{reduced.size / 1e6:.2f}', others)
    for kind, hardware in scaling.HARDWARE.items():
      expected = [[scaling.efficiency(one, n, hardware, utilisation, overlap) for overlap in (True, False)]
                  for n in DEVICES]
      modelled.add_row(name, kind, *(f'{hidden:.1%} ({waited:.1%})' for hidden, waited in expected))
  return [counted, modelled]
