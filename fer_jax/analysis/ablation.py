"""An ablation: the rows of a config with several seeds each, trained by the queue, and their tables and page.

launch/sweep reads the rows here, which needs no JAX; what does is imported where it is used.
"""

import contextlib
import itertools
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from fer_jax.analysis import queue
from fer_jax.errors import UserError, nearest
from fer_jax.runtime import lock
from fer_jax.runtime.console import plain
from fer_jax.training import config_files

SEEDS = 3  # Of a row, where nothing else is said.


class Table(NamedTuple):
  """What an ablation config says: its file, names of rows, primary comparisons, {row: its teacher}, {row: seeds}."""

  path: str
  rows: Collection[str]
  primary: list[tuple[str, str]]
  teachers: Mapping[str, str]
  seeds: Mapping[str, int]


def choose_rows(config: str, rows: Sequence[str] = ()) -> list[str]:
  """Names of the rows of an ablation config, 'PATH:DATASET' or 'NAME:DATASET'; of those in ``rows``, if there are any.

  Raises:
    UserError: an unknown row, or as of ``_read``.
  """
  table = _read(config)
  for row in rows:
    if row not in table.rows:
      raise UserError(f"--rows: {table.path} has no row '{row}'{nearest(row, table.rows)}")
  return list(dict.fromkeys(rows or table.rows))


def choose_primary(config: str) -> list[tuple[str, str]]:
  """The pairs of rows in an ablation config's PRIMARY: the comparisons that were chosen before anything was trained."""
  return _read(config).primary


def choose_seeds(config: str, rows: Sequence[str], given: int | None = None) -> dict[str, int]:
  """How many seeds each of the rows has: as ``given``, or else as the config's SEEDS says, 3 where it is silent.

  Raises:
    UserError: less than one is given, or as of ``_read``.
  """
  stated = _read(config).seeds
  if given is not None and given < 1:
    raise UserError(f'--seeds={given}: give a whole number above 0.')
  return {row: stated.get(row, SEEDS) if given is None else given for row in rows}


def _read(config: str) -> Table:
  """Runs an ablation config, which happens here alone, and checks what it says.

  Raises:
    UserError: no such config, one without rows or data set; PRIMARY, TEACHERS or SEEDS name a row that is not in ROWS;
      PRIMARY is not made of pairs or has one twice; a row would learn from itself; SEEDS are not whole numbers above 0.
  """
  path, dataset = config_files.find(config)
  if not dataset:
    raise UserError(f'--config={config}: give an ablation config and its data set, such as ablations/pal:ferplus')
  defined = config_files.run(path)
  rows, primary = defined.get('ROWS'), defined.get('PRIMARY', ())
  teachers, seeds = defined.get('TEACHERS', {}), defined.get('SEEDS', {})
  if not rows:
    raise UserError(f'--config={config}: {path} has no ROWS; the configs with rows are in configs/ablations.')
  for pair in primary:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or pair[0] == pair[1]:
      raise UserError(f"{path}: PRIMARY has {pair!r}; write pairs of two rows: PRIMARY = (('row', 'against'),)")
  if not isinstance(seeds, Mapping):
    raise UserError(f"{path}: SEEDS is {seeds!r}; write rows and their numbers: SEEDS = {{'row': 5}}")
  for says, named in (('PRIMARY names the row', itertools.chain(*primary)),
                      ('TEACHERS names', (*teachers, *teachers.values())), ('SEEDS names', seeds)):
    for row in named:
      if row not in rows:
        raise UserError(f"{path}: {says} '{row}', which is not in ROWS{nearest(row, rows)}")
  if len({frozenset(pair) for pair in primary}) < len(primary):
    raise UserError(f'{path}: PRIMARY has a pair twice, and is corrected for the number of its pairs; leave one out.')
  for row in teachers:
    line = [row]
    while (last := teachers.get(line[-1])) and last not in line:
      line.append(last)
    if last:
      raise UserError(f"{path}: TEACHERS lets '{last}' learn from itself; leave one of its teachers out.")
  for row, count in seeds.items():
    if not isinstance(count, int) or count < 1:
      raise UserError(f"{path}: SEEDS of '{row}' is {count!r}: give a whole number above 0.")
  return Table(path, rows, [tuple(pair) for pair in primary], teachers, seeds)


def list_jobs(config: str, seeds: Mapping[str, int], workdir: str, more: Sequence[str] = ()) -> list[queue.Job]:
  """The rows in ``seeds``, {row: number of seeds}, seed by seed, so that what is cut off has whole rounds.

  ``more`` are further arguments of every training. A row that the config's ``TEACHERS`` names, {row: row}, learns from
  the run of the other row with the same seed, and waits for it.

  Raises:
    UserError: a teacher whose run is neither finished nor among the jobs, or as of ``_read``.
  """
  teachers = _read(config).teachers
  jobs = [queue.make_job(workdir, row, seed, f'{config}:{row}', more, teachers.get(row, ''))
          for seed in range(max(seeds.values())) for row in seeds if seed < seeds[row]]
  own = {job.workdir for job in jobs}
  for job in (job for job in jobs if job.after):
    if any(word.startswith('--config.teacher.workdir') for word in more):
      raise UserError(f"teacher.workdir: '{job.row}' learns from '{teachers[job.row]}', say the TEACHERS of {config}; "
                      'leave this change out, or train the row by itself with fer_jax.train.')
    if job.after not in own and not any(map(queue.finished, (job.workdir, job.after))):
      raise UserError(f"--rows: '{job.row}' learns from '{teachers[job.row]}', of which {job.after} holds no finished "
                      'run: name it in --rows as well, with as many seeds.')
  return jobs


def check_jobs(config: str, seeds: Mapping[str, int], workdir: str, changes: Sequence[str] = ()) -> list[queue.Job]:
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
  configs, seen = {row: config_files.load_config(f'{config}:{row}', changes) for row in seeds}, {}
  jobs = list_jobs(config, seeds, workdir, config_files.arguments(next(iter(configs.values())), changes))
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


def report(workdir: str, seeds: Mapping[str, int], command: str, out: str | None, alone: bool,
           primary: Sequence[tuple[str, str]] = ()) -> None:
  """Prints and writes the tables, and writes the page; what cannot be used is said on the standard error.

  Args:
    workdir: of the ablation, local or on gs://.
    seeds: {row: number of seeds}.
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
  found, problems = ablation.collect(workdir, seeds)
  tables = ablation.make_tables(found, command, primary)
  print(formats.deliver(tables, out))
  with contextlib.nullcontext() if alone else lock.hold(f'{workdir}/ablation.lock', wait=True):
    for ending in ('md', 'tex', 'csv'):
      formats.deliver(tables, f'{workdir}/ablation.{ending}')
    page = write_page(workdir, found, tables)
  for sentence in problems:
    print(plain(f'note: {sentence}'), file=sys.stderr)
  print(f'Written: {workdir}/ablation.md, ablation.tex, ablation.csv; report: {page}', file=sys.stderr)
