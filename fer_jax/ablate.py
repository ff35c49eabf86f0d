"""Trains the rows of an ablation config, several seeds of each, and makes its tables.

    python -m fer_jax.ablate --config=configs/ablations/pal.py:ferplus --seeds=5 --workdir=runs/pal --workers=3
    python -m fer_jax.ablate --config=configs/ablations/pal.py:ferplus --seeds=5 --workdir=runs/pal --collect

A row's run with a seed is a training of its own, in WORKDIR/ROW-SEED. Given again, the command leaves out what is
finished and goes on with what was interrupted; SIGTERM and Ctrl-C reach the trainings, which save their states, and end
the command with status 75. --workers=N trains N runs at a time, each with a log in WORKDIR/ROW-SEED.log; they share the
memory of a GPU (a TPU takes one process only). Start the command several times, also on hosts that share the workdir,
and all workers divide the runs among them. Afterwards the tables are printed and written to WORKDIR/ablation.md, .tex
and .csv, with a page, WORKDIR/report.html. --collect trains nothing and takes what is there, also what launch/sweep has
left. Comparisons that the config states beforehand, as PRIMARY, have a table of their own, corrected for their number.
Without --seeds a row has as many seeds as the config's SEEDS, {row: number}, says, or else 3.
"""

import shlex
import sys
from typing import Any

from absl import flags

from fer_jax import command_line


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string('config', None, 'An ablation config, and behind a colon the data set.', required=True)
  flags.DEFINE_string('workdir', None, 'Folder of the runs; gs:// for --collect only.', required=True)
  flags.DEFINE_list('rows', [], 'Rows of the config; all by default. Others are compared with the first.')
  flags.DEFINE_integer('seeds', None, "Seeds of each row: 0, 1 ...; by default as the config's SEEDS says, or 3.")
  flags.DEFINE_integer('workers', 1, 'How many runs are trained at the same time, here.', lower_bound=1)
  flags.DEFINE_multi_string('set', [], 'A change to the config of every row, such as --set=epochs=10; may be repeated.')
  flags.DEFINE_boolean('collect', False, 'Train nothing: only make the tables of the runs that are there.')
  command_line.define_out()


def main(given: Any) -> None:
  """Trains what is missing, and prints and writes the tables."""
  from fer_jax.analysis import ablation, queue
  from fer_jax.reports import formats
  formats.check_out(given.out)  # Not only after days of training.
  rows, primary, status = ablation.choose_rows(given.config, given.rows), ablation.choose_primary(given.config), 0
  seeds = ablation.choose_seeds(given.config, rows, given.seeds)
  import jax
  jax.config.update('jax_platforms', 'cpu')  # Devices are for the trainings.
  if not given.collect:
    jobs = ablation.check_jobs(given.config, seeds, given.workdir, given.set)
    status = queue.train_all(jobs, shared=True, workers=given.workers)
  if status != queue.PREEMPTED:
    options = [f'--config={given.config}', *[f"--rows={','.join(given.rows)}"] * bool(given.rows),
               *[f'--seeds={given.seeds}'] * (given.seeds is not None), f'--workdir={given.workdir}',
               *(f'--set={change}' for change in given.set)]
    command = shlex.join(['python', '-m', 'fer_jax.ablate', *options])
    ablation.report(given.workdir, seeds, command, given.out, given.collect, primary)
  sys.exit(status)


if __name__ == '__main__':
  command_line.run(define, main)
