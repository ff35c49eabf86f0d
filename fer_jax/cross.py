"""Trains a config on several data sets and tests every network on the test splits of all: the matrix.

    python -m fer_jax.cross --config=configs/baseline.py --datasets=ferplus,fer2013 --seeds=3 --workdir=runs/cross
    python -m fer_jax.cross --workdirs='runs/pal-*,runs/rafdb-*' --datasets=sfew/aligned:valid --workdir=runs/cross

A data set is NAME or NAME/VARIANT. With --config each is trained on and tested on; a run lies in WORKDIR/NAME-SEED, and
as with fer_jax.ablate finished runs are left out, interrupted ones go on, and several workers divide the runs among
them. '*' in the config's argument stands for the data set, as in --config=configs/ablations/pal.py:*:true_class. With
--workdirs finished runs are tested on the test splits of all their data sets, and on those of --datasets, where :SPLIT
may stand behind. Cells are over the classes that two data sets share, by name. WORKDIR/cross.json has everything.
"""

import sys
from typing import Any

from absl import flags

from fer_jax import command_line
from fer_jax.errors import UserError


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string('config', None, 'A config that takes a data set as its argument.')
  flags.DEFINE_list('datasets', [], 'Data sets, NAME or NAME/VARIANT, with commas between.')
  flags.DEFINE_integer('seeds', 1, 'How many seeds on each data set: 0, 1 ...', lower_bound=1)
  flags.DEFINE_multi_string('set', [], 'A change to the config of every training, such as --set=epochs=10; may be '
                            'repeated.')
  flags.DEFINE_list('workdirs', [], "Instead of --config, folders of finished runs; '*' stands for several.")
  flags.DEFINE_string('workdir', None, 'Folder of the result, and of what is trained.', required=True)
  flags.DEFINE_string('data_dir', '', 'Where the data sets of --datasets lie, beside --workdirs.')
  command_line.define_out()
  command_line.define_start()


def main(given: Any) -> None:
  """Trains what is missing, tests, prints the tables and writes ``WORKDIR/cross.json``."""
  from fer_jax.reports import formats
  formats.check_out(given.out)  # Not only after days of training.
  if bool(given.config) == bool(given.workdirs):
    raise UserError('give either --config=CONFIG or --workdirs=RUNS.')
  if given.workdirs and given.set:
    raise UserError('--set changes trainings; runs that are there stay as they are: leave it out, or give --config.')
  from fer_jax.analysis import cross, queue
  from fer_jax.reports.cross import make_tables
  from fer_jax.reports.runs import expand
  from fer_jax.runtime import cluster, storage
  if given.config:
    jobs = cross.plan(given.config, given.datasets, given.seeds, given.workdir, given.set)
    if status := queue.train_all(jobs, shared=True):
      sys.exit(status)
    workdirs, more = [job.workdir for job in jobs], []
  command_line.start(given)
  if not given.config:
    workdirs = [path for pattern in given.workdirs for path in expand(pattern)]
    parsed = map(cross.parse, given.datasets)
    more = [cross.Test(name, variant, split or 'test', given.data_dir) for name, variant, split in parsed]
  result = cross.measure([storage.as_path(workdir) for workdir in dict.fromkeys(workdirs)], more)
  storage.write_json(storage.as_path(given.workdir) / 'cross.json', result)
  cluster.say(formats.deliver(make_tables(result), given.out))


if __name__ == '__main__':
  command_line.run(define, main)
