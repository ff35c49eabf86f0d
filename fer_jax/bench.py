"""Compares configs on this machine, in turns; or measures what data cost; or counts what a step sends between devices.

    python -m fer_jax.bench --configs=configs/baseline.py:ferplus,configs/pal.py:ferplus
    python -m fer_jax.bench --configs=configs/pal.py:ferplus --seeds=4     # So many seeds at once, and one by one.
    python -m fer_jax.bench --faces=ferplus         # Reading, decoding and finding landmarks, on one core.
    python -m fer_jax.bench --workers=1,2           # Preparing 2,000 drawn faces by so many processes.
    python -m fer_jax.bench --scaling=configs/baseline.py:ferplus,configs/pal.py:ferplus     # Needs no data.

Step times are taken in turns within one run and reported as ratios to the first config, round by round: machines drift,
and an absolute second means nothing on another one. FLOPs are the compiler's own count of the compiled step. What
``--scaling`` says of other hardware is no measurement but the model of ``scaling.py``.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

from fer_jax import command_line
from fer_jax.errors import UserError
from fer_jax.training import config_files

_CONFIGS = flags.DEFINE_list('configs', None, 'Config files to compare, each with its data set behind a colon; the '
                             'first is what the others are divided by.')
_SEEDS = flags.DEFINE_integer('seeds', 1, 'With --configs: compare so many seeds at once, each with its own order or '
                              'all with one, with as many single steps of the same config.', lower_bound=1)
_FACES = flags.DEFINE_string('faces', None, 'Or a prepared data set, DATASET or DATASET:VARIANT, to read.')
_WORKERS = flags.DEFINE_list('workers', None, 'Or numbers of processes, by which drawn faces are prepared.')
_SCALING = flags.DEFINE_list('scaling', None, 'Or config files, whose steps are compiled for 8 virtual devices.')
_UTILISATION = flags.DEFINE_float('utilisation', 0.3, 'With --scaling, the share of its peak that a device is taken to '
                                  'attain.', lower_bound=0.01, upper_bound=1.0)
_ROUNDS = flags.DEFINE_integer('rounds', 15, 'Rounds; in each, every config takes its steps once.', lower_bound=2)
_STEPS = flags.DEFINE_integer('steps', 3, 'Steps of a config in a round.', lower_bound=1)
_SET = flags.DEFINE_multi_string('set', [], 'A change to all configs, such as --set=batch_size=32; may be repeated.')

_DEVICES = (8, 64, 256, 1024)  # With --scaling; the first is how many the step is compiled for.
_COUNT = 100  # Faces of a round, with --faces.
_PREPARED = 2_000  # Drawn faces, with --workers.


@dataclasses.dataclass
class Contestant:
  """A config ready to step: ``step()`` starts a step and returns something to wait for."""

  name: str
  batch_size: int
  flops: float
  pipeline: float
  step: Callable[[], Any]


def make_contestant(name: str, config: Any) -> Contestant:
  """Compiles the training step of ``config`` and measures its data pipeline alone, in images a second.

  Of several seeds an image counts once for each of them that is trained on it.
  """
  from fer_jax.runtime import cluster
  from fer_jax.training import seeds, setup, sources, step
  mesh = cluster.make_mesh()
  cluster.check_batch(config.batch_size, mesh)
  config.data.cache = False  # What reading and decoding cost, not what memory does.
  parts = sources.open_parts(config)
  teacher, frozen = setup.load_teacher(config, mesh)
  system = setup.make_system(config, parts[0].source.classes, 1000, teacher)
  members = seeds.of(config)
  state = cluster.replicate(members.stack(system.initial), mesh)
  meter = cluster.replicate(members.stack(lambda seed: step.new_meter(system.recipe.terms)), mesh)
  batches = members.batches(parts, batch_size=config.batch_size, threads=config.data.threads)
  batch = cluster.place(next(batches), mesh, members.axis)
  began, count = time.perf_counter(), 0
  while time.perf_counter() - began < 2.0:
    next(batches)
    count += config.batch_size * len(members)
  pipeline = count / (time.perf_counter() - began)
  compiled = cluster.parallel(members.step(system.recipe), mesh, config.parallel, members.axis).lower(
      state, meter, frozen, batch).compile()
  holder = [state, meter]

  def take_step() -> Any:
    holder[:] = compiled(*holder, frozen, batch)
    return holder

  return Contestant(name, config.batch_size * len(members), compiled.cost_analysis()['flops'], pipeline, take_step)


def interval(ratios: np.ndarray) -> tuple[float, float]:
  """95 % bootstrap interval of the median of ``ratios`` (n,), by percentiles of 10,000 resamples (seeded)."""
  draws = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
  low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
  return float(low), float(high)


def compare(contestants: list[Contestant], rounds: int, steps: int) -> np.ndarray:
  """Seconds per step (rounds, contestants), taken in turns; the order turns round by round so that drift cancels."""
  import jax
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


def main(argv: list[str]) -> None:
  """Prints the table."""
  del argv
  if sum(bool(flag.value) for flag in (_CONFIGS, _FACES, _WORKERS, _SCALING)) != 1:
    raise UserError('give one of --configs, --faces, --workers and --scaling.')
  if _SEEDS.value > 1 and not _CONFIGS.value:
    raise UserError(f'--seeds={_SEEDS.value} goes with --configs: name the configs whose seeds are to be compared.')
  if _FACES.value:
    _print_faces(_FACES.value)
  elif _WORKERS.value:
    _print_workers(_WORKERS.value)
  elif _SCALING.value:
    _print_scaling(_SCALING.value)
  elif _SEEDS.value > 1:
    from fer_jax.runtime import cluster
    cluster.start()
    for name in _CONFIGS.value:
      _print_seeds(name, _SEEDS.value)
  else:
    _print_configs()


def _print_faces(name: str) -> None:
  from rich.console import Console
  from rich.table import Table

  from fer_jax.analysis import rates
  from fer_jax.data.reading import splits
  from fer_jax.runtime import cluster
  dataset, _, variant = name.partition(':')
  source = splits.open_split(dataset, variant, 'train', None, prepare_if_missing=dataset == 'synthetic_faces')
  found = rates.faces_per_second(source, _ROUNDS.value, _COUNT)
  table = Table('on one core', 'faces/s, median', 'slowest and fastest round',
                title=f'{_ROUNDS.value} rounds of {_COUNT} faces of {source.size} px in turns on {cluster.hardware()}')
  for what, values in found.items():
    table.add_row(what, f'{np.median(values):,.0f}', f'{values.min():,.0f} to {values.max():,.0f}')
  Console(width=130).print(table)


def _print_workers(numbers: list[str]) -> None:
  from rich.console import Console
  from rich.table import Table

  from fer_jax.analysis import rates
  if not all(number.isdecimal() and int(number) for number in numbers):
    raise UserError(f"--workers={','.join(numbers)}: give numbers of processes, such as --workers=1,2.")
  workers = [int(number) for number in numbers]
  seconds = rates.preparation_seconds(workers, _PREPARED, _ROUNDS.value)
  from fer_jax.runtime import cluster
  table = Table('processes', 'faces/s', f'times as fast as {workers[0]}', 'lowest and highest ratio',
                title=f'{_PREPARED:,} drawn faces prepared, {_ROUNDS.value} rounds in turns on {cluster.hardware()}')
  for i, number in enumerate(workers):
    ratios = seconds[:, 0] / seconds[:, i]
    table.add_row(str(number), f'{_PREPARED / np.median(seconds[:, i]):,.0f}', f'{np.median(ratios):.2f}',
                  f'{ratios.min():.2f} to {ratios.max():.2f}')
  Console(width=130).print(table)


def _print_scaling(names: list[str]) -> None:
  import jax
  from rich.console import Console
  from rich.table import Table

  from fer_jax.runtime import cluster, scaling
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', _DEVICES[0])
  mesh = cluster.make_mesh()
  counted = Table('config', 'parameters', 'rows/device', 'GFLOP/device', 'all-reduces', 'MB', 'other collectives',
                  title=f'The compiled step on {mesh.size} devices')
  modelled = Table('config', 'on', *(f'{n:,} devices' for n in _DEVICES),
                   title='Modelled, not measured: efficiency if gradients travel during the backward pass (if they are '
                         f'waited for), at the same rows/device, with {_UTILISATION.value:.0%} of the peak')
  for name in names:
    config = config_files.load_config(name, _SET.value)
    compiled, parameters = scaling.compile_step(config, mesh)
    found = scaling.collectives(compiled.as_text())
    reduced = found.pop('all-reduce')
    step = scaling.Step(compiled.cost_analysis()['flops'], config.model.dtype, parameters, reduced)
    others = ', '.join(f'{total.count} {kind}, {total.size / 1e6:.3f} MB' for kind, total in found.items()) or 'none'
    counted.add_row(name, f'{parameters:,}', str(config.batch_size // mesh.size), f'{step.flops / 1e9:,.2f}',
                    str(reduced.count), f'{reduced.size / 1e6:.2f}', others)
    for kind, hardware in scaling.HARDWARE.items():
      expected = [[scaling.efficiency(step, n, hardware, _UTILISATION.value, overlap) for overlap in (True, False)]
                  for n in _DEVICES]
      modelled.add_row(name, kind, *(f'{hidden:.1%} ({waited:.1%})' for hidden, waited in expected))
  Console(width=130).print(counted, modelled)


def _print_configs() -> None:
  from fer_jax.runtime import cluster
  cluster.start()
  configs = {name: config_files.load_config(name, _SET.value) for name in _CONFIGS.value}
  if len(configs) < 2:
    raise UserError('--configs needs at least two different configs to compare.')
  _print_ratios([make_contestant(name, config) for name, config in configs.items()])


def _print_seeds(name: str, count: int) -> None:
  make = lambda what, *changes: make_contestant(what, config_files.load_config(name, [*_SET.value, *changes]))
  one = make(name)
  # As many steps from one state: what they cost does not depend on whose it is.
  singly = Contestant(f'{count} single steps of {name}', count * one.batch_size, count * one.flops, one.pipeline,
                      lambda: [one.step() for _ in range(count)][-1])
  _print_ratios([singly, make(f'{count} seeds at once, each with its own order', f'seeds={count}'),
                 make(f'{count} seeds at once, all with one order', f'seeds={count}', 'data.seed=0')])


def _print_ratios(contestants: list[Contestant]) -> None:
  """Lets them take their steps and prints how they compare with the first."""
  from rich.console import Console
  from rich.table import Table

  from fer_jax.runtime import cluster
  seconds = compare(contestants, _ROUNDS.value, _STEPS.value)
  table = Table(title=f'{_ROUNDS.value} rounds of {_STEPS.value} steps in turns on {cluster.hardware()}')
  for column in ('config', 'step time ratio', '95 % of the median', 'FLOPs ratio', 'GFLOP/image', 'images/s',
                 'data alone, images/s'):
    table.add_column(column)
  for i, c in enumerate(contestants):
    ratios = seconds[:, i] / seconds[:, 0]
    low, high = interval(ratios)
    table.add_row(c.name, f'{np.median(ratios):.3f}', f'{low:.3f} to {high:.3f}' if i else '-',
                  f'{c.flops / contestants[0].flops:.4f}', f'{c.flops / c.batch_size / 1e9:.3f}',
                  f'{c.batch_size / np.median(seconds[:, i]):.0f}', f'{c.pipeline:.0f}')
  Console(width=130).print(table)
  spread = seconds.max(axis=0) / seconds.min(axis=0)
  print(f'Noise: the slowest round of a config took {spread.max():.2f} times its fastest.')


if __name__ == '__main__':
  command_line.run(main)
