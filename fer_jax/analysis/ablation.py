"""An ablation: the rows of a config with several seeds each, trained by the queue, and their tables and page.

launch/sweep reads the rows here, which needs no JAX; what does is imported where it is used.
"""

import contextlib
import sys
from collections.abc import Collection, Sequence

from fer_jax.analysis import queue
from fer_jax.errors import UserError, nearest
from fer_jax.runtime import lock
from fer_jax.runtime.console import plain
from fer_jax.training import config_files


def choose_rows(config: str, rows: Sequence[str] = ()) -> list[str]:
  """Names of the rows of an ablation config, 'PATH:DATASET' or 'NAME:DATASET'; of those in ``rows``, if there are any.

  Raises:
    UserError: no such config, one without rows or data set, an unknown row, or as of ``choose_primary``.
  """
  path, table, _ = _read(config)
  for row in rows:
    if row not in table:
      raise UserError(f"--rows: {path} has no row '{row}'{nearest(row, table)}")
  return list(dict.fromkeys(rows or table))


def choose_primary(config: str) -> list[tuple[str, str]]:
  """The pairs of rows in an ablation config's PRIMARY: the comparisons that were chosen before anything was trained.

  Raises:
    UserError: PRIMARY is not made of pairs, names a row that is not in ROWS, or has a pair twice.
  """
  return _read(config)[2]


def _read(config: str) -> tuple[str, Collection[str], list[tuple[str, str]]]:
  """The path of an ablation config, the names of its rows, and its primary comparisons."""
  path, dataset = config_files.find(config)
  if not dataset:
    raise UserError(f'--config={config}: give an ablation config and its data set, such as ablations/pal:ferplus')
  defined = config_files.run(path)
  table, primary = defined.get('ROWS'), defined.get('PRIMARY', ())
  if not table:
    raise UserError(f'--config={config}: {path} has no ROWS; the configs with rows are in configs/ablations.')
  for pair in primary:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or pair[0] == pair[1]:
      raise UserError(f"{path}: PRIMARY has {pair!r}; write pairs of two rows: PRIMARY = (('row', 'against'),)")
    for row in pair:
      if row not in table:
        raise UserError(f"{path}: PRIMARY names the row '{row}', which is not in ROWS{nearest(row, table)}")
  if len({frozenset(pair) for pair in primary}) < len(primary):
    raise UserError(f'{path}: PRIMARY has a pair twice, and is corrected for the number of its pairs; leave one out.')
  return path, table, [tuple(pair) for pair in primary]


def list_jobs(config: str, rows: Sequence[str], seeds: int, workdir: str, more: Sequence[str] = ()) -> list[queue.Job]:
  """All rows with the seeds 0 to ``seeds`` - 1, seed by seed, so that what is cut off has whole rounds.

  ``more`` are further arguments of every training. A row that the config's ``TEACHERS`` names, {row: row}, learns from
  the run of the other row with the same seed, and waits for it.

  Raises:
    UserError: no seeds, ``TEACHERS`` that cannot be, or a teacher that is neither finished nor among the rows.
  """
  if seeds < 1:
    raise UserError(f'--seeds={seeds}: give a whole number above 0.')
  teachers = _teachers(config)
  jobs = [queue.make_job(workdir, row, seed, f'{config}:{row}', more, teachers.get(row, ''))
          for seed in range(seeds) for row in rows]
  own = {job.workdir for job in jobs}
  for job in (job for job in jobs if job.after):
    if any(word.startswith('--config.teacher.workdir') for word in more):
      raise UserError(f"teacher.workdir: '{job.row}' learns from '{teachers[job.row]}', say the TEACHERS of {config}; "
                      'leave this change out, or train the row by itself with fer_jax.train.')
    if job.after not in own and not any(map(queue.finished, (job.workdir, job.after))):
      raise UserError(f"--rows: '{job.row}' learns from '{teachers[job.row]}', of which {job.after} holds no finished "
                      'run: name it in --rows as well.')
  return jobs


def _teachers(config: str) -> dict[str, str]:
  """``TEACHERS`` of an ablation config: {row: row that it learns from}.

  Raises:
    UserError: they name what is no row, or a row would learn from itself.
  """
  path, _ = config_files.find(config)
  names = config_files.run(path)
  table, teachers = names.get('ROWS', {}), names.get('TEACHERS', {})
  for row in (*teachers, *teachers.values()):
    if row not in table:
      raise UserError(f"{path}: TEACHERS names '{row}', which is not in ROWS{nearest(row, table)}")
  for row in teachers:
    line = [row]
    while (last := teachers.get(line[-1])) and last not in line:
      line.append(last)
    if last:
      raise UserError(f"{path}: TEACHERS lets '{last}' learn from itself; leave one of its teachers out.")
  return teachers


def check_jobs(config: str, rows: Sequence[str], seeds: int, workdir: str, changes: Sequence[str] = ()
               ) -> list[queue.Job]:
  """The jobs of ``list_jobs`` with ``changes`` 'key=value' to every config, checked before anything starts.

  Raises:
    UserError: a change that cannot be or leaves no difference between two rows, a run of other settings is there, or
      the workdir is in a bucket.
  """
  from fer_jax.runtime import storage
  from fer_jax.training import setup, start
  from fer_jax.training.workdir import is_claimed
  for key in ('seed', 'name'):
    if key in (change.partition('=')[0] for change in changes):
      raise UserError(f'--set={key}: every run has its own; --seeds says how many seeds there are.')
  if workdir.startswith('gs://'):
    raise UserError(f'--workdir={workdir}: a bucket has no locks to divide the runs by. Train with launch/sweep and '
                    'make the tables with --collect, or choose a folder that the workers share.')
  storage.as_path(workdir)  # Names other kinds of storage.
  configs, seen = {row: config_files.load_config(f'{config}:{row}', changes) for row in rows}, {}
  jobs = list_jobs(config, rows, seeds, workdir, config_files.arguments(configs[rows[0]], changes))
  after = {job.row: job.after for job in jobs if not job.seed}
  for row, made in configs.items():
    if (other := seen.setdefault((after[row], str(made.to_dict() | {'name': ''})), row)) != row:
      raise UserError(f"the rows '{other}' and '{row}' are the same config"
                      + (f" with --set={' --set='.join(changes)}." if changes else '.'))
    start.settle(made, [f'--config.{change}' for change in changes])
  for job in jobs:
    made = configs[job.row]
    made.seed = job.seed
    if job.after:
      made.teacher.workdir = job.after
    is_claimed(job.workdir, setup.settings(made))
  return jobs


def report(workdir: str, rows: Sequence[str], seeds: int, command: str, out: str | None, alone: bool,
           primary: Sequence[tuple[str, str]] = ()) -> None:
  """Prints and writes the tables, and writes the page; what cannot be used is said on the standard error.

  Args:
    workdir: of the ablation, local or on gs://.
    command: what makes all this, for the tables.
    out: file of the tables, beside those in the workdir, or None.
    alone: whether no other worker may be at the same; buckets have no locks.
    primary: pairs of rows, for a table of these comparisons.

  Raises:
    UserError: there is no such folder, or a file cannot be written.
  """
  from fer_jax.reports import ablation, formats
  from fer_jax.reports.ablation_page import write_page
  from fer_jax.runtime import storage
  workdir = storage.as_path(workdir)
  found, problems = ablation.collect(workdir, rows, seeds)
  tables = ablation.make_tables(found, command, primary)
  print(formats.deliver(tables, out))
  with contextlib.nullcontext() if alone else lock.hold(f'{workdir}/ablation.lock', wait=True):
    for ending in ('md', 'tex', 'csv'):
      formats.deliver(tables, f'{workdir}/ablation.{ending}')
    page = write_page(workdir, found, tables)
  for sentence in problems:
    print(plain(f'note: {sentence}'), file=sys.stderr)
  print(f'Written: {workdir}/ablation.md, ablation.tex, ablation.csv; report: {page}', file=sys.stderr)
