"""Trains the rows of an ablation config, several seeds of each, and makes its tables.

    python -m fer_jax.ablate --config=configs/ablations/pal.py:ferplus --seeds=5 --workdir=runs/pal
    python -m fer_jax.ablate --config=configs/ablations/pal.py:ferplus --seeds=5 --workdir=runs/pal --collect

A row's run with a seed is a training of its own, in WORKDIR/ROW-SEED. Given again, the command leaves out what is
finished and goes on with what was interrupted; SIGTERM and Ctrl-C reach the training, which saves its state, and end
the command with status 75. Start it several times, also on hosts that share the workdir, and the workers divide the
runs among them. Afterwards the tables are printed and written to WORKDIR/ablation.md, .tex and .csv, with a page,
WORKDIR/report.html. --collect trains nothing and takes what is there, also what launch/sweep or config.seeds has left.
"""

import contextlib
import shlex
import sys

from absl import flags

from fer_jax import command_line
from fer_jax.analysis import ablation
from fer_jax.errors import UserError
from fer_jax.training import config_files

_CONFIG = flags.DEFINE_string('config', None, 'An ablation config, and behind a colon the data set.', required=True)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the runs; gs:// for --collect only.', required=True)
_ROWS = flags.DEFINE_list('rows', [], 'Rows of the config; all by default. Others are compared with the first.')
_SEEDS = flags.DEFINE_integer('seeds', 3, 'How many seeds of each row: 0, 1 ...')
_SET = flags.DEFINE_multi_string('set', [], 'A change to the config of every row, such as --set=epochs=10; may be '
                                 'repeated.')
_COLLECT = flags.DEFINE_boolean('collect', False, 'Train nothing: only make the tables of the runs that are there.')
_FORMAT = flags.DEFINE_string('format', 'text', 'What is printed: text, markdown, latex or csv.')
_OUT = flags.DEFINE_string('out', None, 'File to write that to, instead of the console.')

_FILES = {'ablation.md': 'markdown', 'ablation.tex': 'latex', 'ablation.csv': 'csv'}


def main(argv: list[str]) -> None:
  """Trains what is missing, and prints and writes the tables."""
  del argv
  from fer_jax.reports import formats
  formats.render([], _FORMAT.value)  # Not only after days of training.
  rows = ablation.choose_rows(_CONFIG.value, ','.join(_ROWS.value))
  if _WORKDIR.value.startswith('gs://') and not _COLLECT.value:
    raise UserError(f'--workdir={_WORKDIR.value}: a bucket has no locks to divide the runs by. Train with launch/sweep '
                    'and make the tables with --collect, or choose a folder that the workers share.')
  import jax
  jax.config.update('jax_platforms', 'cpu')  # Devices are for the trainings.
  status = 0 if _COLLECT.value else _train(rows)
  if status != ablation.PREEMPTED:
    _report(rows)
  sys.exit(status)


def _train(rows: list[str]) -> int:
  """Trains what is not finished, with other workers if there are any; returns an exit status."""
  arguments = _check(rows)
  jobs = []
  for job in ablation.list_jobs(_CONFIG.value, rows, _SEEDS.value, _WORKDIR.value, arguments):
    together = ablation.homes(_WORKDIR.value, job.row, job.seed)[1]
    if when := ablation.finished(together):
      print(f'# {together}: finished at {when}', flush=True)
    else:
      jobs.append(job)
  return ablation.train_all(jobs, shared=True)


def _check(rows: list[str]) -> list[str]:
  """Checks --set and the runs that are there already, before anything starts.

  Returns:
    The changes as arguments of a training.

  Raises:
    UserError: a change that cannot be or leaves no difference between two rows, or a run of other settings.
  """
  from fer_jax.runtime import storage
  from fer_jax.training.workdir import is_claimed
  keys = [change.partition('=')[0] for change in _SET.value]
  for key in ('seed', 'seeds', 'name'):
    if key in keys:
      raise UserError(f'--set={key}: every run has its own; --seeds says how many seeds there are.')
  storage.as_path(_WORKDIR.value)  # Names other kinds of storage.
  seen: dict[str, str] = {}
  for row in rows:
    config = config_files.load_config(f'{_CONFIG.value}:{row}', _SET.value)
    recipe = str(config.to_dict() | {'name': ''})
    if (other := seen.setdefault(recipe, row)) != row:
      raise UserError(f"the rows '{other}' and '{row}' are the same config"
                      + (f" with --set={' --set='.join(_SET.value)}." if _SET.value else '.'))
    for seed in range(_SEEDS.value):
      config.seed = seed
      for home in ablation.homes(_WORKDIR.value, row, seed):
        is_claimed(home, config)
  return config_files.arguments(config, _SET.value)


def _report(rows: list[str]) -> None:
  """Prints and writes the tables, and writes the page; what cannot be used is said on the standard error."""
  from fer_jax.reports import ablation as tables_of
  from fer_jax.reports import formats
  from fer_jax.reports.ablation_page import write_page
  from fer_jax.runtime import storage
  found, problems = tables_of.collect(_WORKDIR.value, rows, _SEEDS.value)
  tables = tables_of.make_tables(found, _command())
  print(formats.deliver(tables, _FORMAT.value, _OUT.value))
  workdir = storage.as_path(_WORKDIR.value)
  # Several workers come here at once.
  lock = contextlib.nullcontext() if _COLLECT.value else ablation.held(f'{_WORKDIR.value}/ablation.lock', wait=True)
  with lock:
    for name, form in _FILES.items():
      storage.write_text(workdir / name, formats.render(tables, form))
    page = write_page(workdir, found, tables)
  for sentence in problems:
    print(f'note: {sentence}', file=sys.stderr)
  print(f'Written: {workdir}/{", ".join(_FILES)}; report: {page}', file=sys.stderr)


def _command() -> str:
  """What trains all this and makes the tables, wherever it is given."""
  options = [f'--config={_CONFIG.value}', *[f"--rows={','.join(_ROWS.value)}"] * bool(_ROWS.value),
             f'--seeds={_SEEDS.value}', f'--workdir={_WORKDIR.value}', *(f'--set={change}' for change in _SET.value)]
  return shlex.join(['python', '-m', 'fer_jax.ablate', *options])


if __name__ == '__main__':
  command_line.run(main)
