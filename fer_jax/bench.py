"""Compares configs on this machine, in turns; or measures what data cost; or counts what a step sends between devices.

    python -m fer_jax.bench --configs=configs/baseline.py:ferplus,configs/pal.py:ferplus
    python -m fer_jax.bench --faces=ferplus         # Reading, decoding and finding landmarks, on one core.
    python -m fer_jax.bench --workers=1,2           # Preparing 2,000 drawn faces by so many processes.
    python -m fer_jax.bench --scaling=configs/baseline.py:ferplus,configs/pal.py:ferplus     # Needs no data.
    python -m fer_jax.bench --host=configs/baseline.py:ferplus --set=batch_size=1024   # Feeding, with nothing computed.
    python -m fer_jax.bench --saves=configs/quickstart.py     # How long a checkpoint blocks training.
    python -m fer_jax.bench --evaluation=configs/pal.py:ferplus    # CPU time of an evaluation beside its network.
    python -m fer_jax.bench --convolutions          # XLA's on CPU against the forms of models/convolution.py.
    python -m fer_jax.bench --peer=torch --steps=1  # A plain PyTorch step of the same network; drawn faces.

Step times are taken in turns and reported as ratios to the first config: machines drift, and an absolute second means
nothing on another one. What ``--scaling`` says of other hardware is no measurement but the model of
``runtime/scaling.py``.
"""

import os
from typing import Any

from absl import flags

from fer_jax import command_line
from fer_jax.errors import UserError
from fer_jax.training import config_files


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_list('configs', None, 'Configs to compare, each with its data set behind a colon; the first is what the '
                    'others are divided by.')
  flags.DEFINE_string('faces', None, 'Or a prepared data set, DATASET or DATASET:VARIANT, to read.')
  flags.DEFINE_list('workers', None, 'Or numbers of processes, by which drawn faces are prepared.')
  flags.DEFINE_list('scaling', None, 'Or configs, whose steps are compiled for 8 virtual devices.')
  flags.DEFINE_float('utilisation', 0.3, 'With --scaling, the share of its peak that a device is taken to attain.',
                     lower_bound=0.01, upper_bound=1.0)
  flags.DEFINE_list('host', None, 'Or configs, whose steps are fed and not computed: what they cost the host.')
  flags.DEFINE_list('saves', None, 'Or configs, whose states are saved: how long a save blocks training.')
  flags.DEFINE_list('evaluation', None, 'Or configs, whose test splits are evaluated without their networks.')
  flags.DEFINE_bool('convolutions', False, "Or convolutions on CPU: XLA's and those that stand in for them.")
  flags.DEFINE_enum('peer', None, ['torch'], 'Or a framework, whose steps of baseline, PAL and RAN ours are compared '
                    'with.')
  flags.DEFINE_list('sizes', ['48', '112', '224'], 'With --peer, sides of the images in pixels.')
  flags.DEFINE_list('batches', None, 'With --peer, faces of a step at each of these; by default as many as suit the '
                    'device.')
  flags.DEFINE_integer('rounds', 15, 'Rounds; in each, everything has its turn once.', lower_bound=2)
  flags.DEFINE_integer('steps', 3, 'Steps of a config in a round.', lower_bound=1)
  flags.DEFINE_multi_string('set', [], 'A change to all configs, such as --set=batch_size=32; may be repeated.')


def main(given: Any) -> None:
  """Measures and prints the tables."""
  kinds = ('configs', 'faces', 'workers', 'scaling', 'host', 'saves', 'evaluation', 'convolutions', 'peer')
  if len(wanted := [kind for kind in kinds if given[kind].value]) != 1:
    raise UserError(f"give one of --{', --'.join(kinds)}.")
  if given.peer and given.set:
    raise UserError('--set: the configs of --peer are its own; choose --sizes and --batches.')
  workers, sizes, batches = (_numbers(given, *flag) for flag in (
      ('workers', 'processes'), ('sizes', 'pixels'), ('batches', 'faces')))
  names = given[wanted[0]].value if wanted[0] in ('configs', 'scaling', 'host', 'saves', 'evaluation') else ()
  configs = {name: config_files.load_config(name, given.set) for name in names}
  import jax
  from rich.console import Console

  from fer_jax.analysis import evaluation_cost, host, peer, saving, speed
  from fer_jax.data.reading import splits
  from fer_jax.runtime import cluster
  if given.faces:
    dataset, _, variant = given.faces.partition(':')
    split = splits.open_split(dataset, variant, 'train', None, prepare_if_missing=dataset == 'synthetic_faces')
    tables = [speed.faces_table(split, given.rounds)]
  elif given.workers:
    tables = [speed.preparation_table(workers, given.rounds)]
  elif given.scaling:
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', speed.DEVICES[0])
    tables = speed.scaling_tables(configs, given.utilisation)
  elif given.peer:
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # On a GPU PyTorch needs room beside JAX.
    cluster.start()
    tables = [peer.peer_table(sizes, batches, given.rounds, given.steps)]
  elif given.saves:
    cluster.start()
    tables = [saving.saves_table(config, given.rounds) for config in configs.values()]
  elif given.host or given.evaluation:
    cluster.start()
    measure = host.host_table if given.host else evaluation_cost.evaluation_table
    tables = [measure(configs, given.rounds)]
  else:
    cluster.start()
    tables = [speed.convolutions_table(given.rounds) if given.convolutions else
              speed.steps_table(configs, given.rounds, given.steps)]
  Console(width=130).print(*tables)


def _numbers(given: Any, flag: str, what: str) -> list[int]:
  """A flag's list of numbers; empty where it is not given."""
  texts = given[flag].value or []
  if not all(text.isdecimal() and int(text) for text in texts):
    raise UserError(f"--{flag}={','.join(texts)}: give numbers of {what}, such as --{flag}=1,2.")
  return [int(text) for text in texts]


if __name__ == '__main__':
  command_line.run(define, main)
