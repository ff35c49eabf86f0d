"""Finished runs as tables read them: what their workdirs hold, which are one row, and what must be known of them."""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_jax.errors import UserError
from fer_jax.reports.words import (
  chosen,
  declared,
  evaluations,
  every,
  every_leak,
  named,
  other_data,
  started,
  unanswered,
)
from fer_jax.runtime import storage

# Of a flag: whether a path is what it wants, and how to say that there is none.
_KINDS = {
    'workdirs': (lambda path: path.is_dir(), "folder; give folders of training runs, such as --workdirs='runs/*'"),
    'scores': (lambda path: path.is_file(), "file; give files of score --out, such as --scores='scores/*.json'")}


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """One evaluation of a finished run: the contents of config.json, run.json and evaluation/<split>.json.

  Or predictions from elsewhere, of ``collect_scores``: then ``workdir`` is the file, ``config`` has the data alone, and
  ``record`` is empty.
  """

  workdir: str
  config: Mapping[str, Any]
  record: Mapping[str, Any]
  result: Mapping[str, Any]


def collect(patterns: Sequence[str]) -> tuple[list[Run], list[str]]:
  """Reads finished runs, of workdirs local or on gs:// in which '*', '?' and '[...]' stand for several.

  Returns the evaluations of test splits, and a sentence for each workdir that could not be used. Raises a UserError
  where there is no such folder.
  """
  return read(dict.fromkeys(path for pattern in patterns for path in expand(pattern)))


def read(workdirs: Iterable[str]) -> tuple[list[Run], list[str]]:
  """The evaluations of test splits in these very folders, and a sentence for each that could not be used."""
  runs, problems = [], []
  for workdir in workdirs:
    try:
      runs += _read(workdir)
    except FileNotFoundError as error:
      problems.append(f'{workdir} holds no evaluated run: no {Path(str(error.filename or error)).name}.')
    except UserError as error:
      problems.append(f'{workdir}: {error}')
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      problems.append(f'{workdir} is damaged or of another version: {type(error).__name__}: {error}.')
  return runs, problems


def collect_scores(patterns: Sequence[str]) -> tuple[list[Run], list[str]]:
  """Reads files that ``score --out`` has written, in whose paths '*', '?' and '[...]' stand for several.

  Returns what they hold, and a sentence for each that could not be used. Raises a UserError where there is no file.
  """
  found, problems = [], []
  for path in dict.fromkeys(path for pattern in patterns for path in _matching(pattern, 'scores')):
    try:
      result = storage.read_json(path)
      about = result['protocol']
      data = {key: about[key] for key in ('dataset', 'variant', 'classes')} | {'test': about['split']}
      run = Run(path, {'data': data, 'seed': 0, 'predictions': path}, {}, result)
      _identity(run), protocol([run]), list(marks([run])), result['predictions']
      found.append(run)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      problems.append(f'{path} is no result of fer_jax.score: {type(error).__name__}: {error}.')
  return found, problems


def expand(pattern: str) -> list[str]:
  """The folders that a pattern of ``collect`` stands for; raises a UserError where there is none."""
  return _matching(pattern, 'workdirs')


def _matching(pattern: str, flag: str) -> list[str]:
  """The folders or files that a pattern of a flag stands for."""
  kind, wanted = _KINDS[flag]
  head, wild = re.fullmatch(r'((?:[^*?\[]*/)?)(.*)', pattern.rstrip('/')).groups()
  paths = storage.as_path(head or '.').glob(wild) if re.search(r'[*?\[]', wild) else [storage.as_path(pattern)]
  found = sorted(str(path) for path in paths if kind(path))
  if not found:
    raise UserError(f'--{flag}={pattern}: there is no such {wanted}.')
  return found


def _read(workdir: str) -> list[Run]:
  folder = storage.as_path(workdir)
  config, record = (storage.read_json(folder / name) for name in ('config.json', 'run.json'))
  if not (isinstance(config, dict) and isinstance(record, dict)):
    raise ValueError('config.json or run.json is no record')
  if 'finished' not in record:
    raise UserError('this run has not finished; give its command again and it goes on.')
  test = config['data']['test']
  # Evaluations with changes to the config are in files of their own.
  others = sorted(path for path in (folder / 'evaluation').glob('*.json') if path.name != f'{test}.json')
  results = [storage.read_json(path) for path in (folder / 'evaluation' / f'{test}.json', *others)]
  runs = [Run(workdir, config, record, result) for result in results if result['protocol']['split'] == test]
  for run in runs:
    if run.result['accuracy'] is None:
      raise UserError('the test split has no labelled faces.')
    # What is missing shows here, where the workdir can be named.
    _identity(run), protocol([run]), list(marks([run]))
  return runs


def grouped(runs: Iterable[Run]) -> tuple[dict[str, list[Run]], list[str]]:
  """Runs by the names of their rows: those that differ in their seed alone are one row, with each seed once.

  Also says which runs are left out as they repeat a seed, without the end of a sentence.
  """
  groups: dict[str, dict[int, Run]] = {}
  repeated = []
  for run in runs:
    first = groups.setdefault(_identity(run), {}).setdefault(run.config['seed'], run)
    if first is not run:
      repeated.append(f"{run.workdir} repeats seed {run.config['seed']} of {first.workdir}")
  rows = [list(seeds.values()) for seeds in groups.values()]
  return dict(zip(_labels([row[0] for row in rows]), rows, strict=True)), repeated


def by_config(runs: Iterable[Run]) -> dict[str, list[Run]]:
  """The rows of ``grouped``; raises a UserError where two runs of a row have the same seed."""
  rows, repeated = grouped(runs)
  if repeated:
    raise UserError(f'{repeated[0]}; name one of the two.')
  return rows


def settings(run: Run) -> dict[str, str]:
  """The flat config and what was tested on, without the seed, a teacher's of the same seed, and where the data lie."""
  found = {key: json.dumps(value) for key, value in storage.flat(run.config).items() if key not in ('seed', 'data.dir')}
  teacher, end = (run.config.get('teacher') or {}).get('workdir', ''), f"-{run.config['seed']}"
  if teacher.endswith(end):  # As the rows of an ablation have it.
    found['teacher.workdir'] = json.dumps(f'{teacher.removesuffix(end)}-SEED')
  start = start_of(run)
  return found | {'test data': run.result['protocol']['fingerprint'][:12], **({'start': start} if start else {})}


def marks(runs: Sequence[Run]) -> Iterator[str]:
  """What must be known before the numbers of these runs are compared with others."""
  if reasons := every_leak(run.result for run in runs):
    yield f"LEAKY: {'; '.join(reasons)}"
  yield from dict.fromkeys(filter(None, (declared(run.result) for run in runs)))
  yield from dict.fromkeys(filter(None, (unanswered(run.result) for run in runs)))
  if any(run.record and not run.result['step'] for run in runs):
    yield 'UNTRAINED'
  if (times := max(evaluations(run.result) for run in runs)) > 1:
    yield f'the test split was evaluated {times} times'
  yield from dict.fromkeys(filter(None, (other_data(run.result) for run in runs)))


def protocol(runs: Sequence[Run]) -> str:
  """How runs were trained and tested, by which code and on what, with all the values that they have."""
  of = lambda value, separator=' and ': every(map(value, runs), separator)
  tested = lambda key: of(lambda run: run.result['protocol'][key])
  if foreign := [declared(run.result) for run in runs if declared(run.result)]:
    return (f"predictions from elsewhere, protocol {every(foreign)}; nobody here has checked it, so there is no "
            f"verdict of ours; {of(lambda run: named(run.result['protocol']))}, tested on {tested('split')} "
            f"({of(lambda run: format(run.result['protocol']['n'], ','))} faces, {tested('K')} classes)")
  return (f"{of(lambda run: named(run.result['protocol']))}, trained on {tested('trained_on')} from "
          f"{of(lambda run: start_of(run) or 'random parameters')} ({of(net)}, "
          f"{of(lambda run: run.config['image_size'])} px, "
          f"{of(lambda run: run.config.get('length') or format(run.config['epochs'], 'g') + ' epochs')}), "
          f"{of(lambda run: chosen(run.result['protocol']))}, tested on "
          f"{tested('split')} ({of(lambda run: format(run.result['protocol']['n'], ','))} faces, {tested('K')} "
          f"classes), evaluations {of(lambda run: evaluations(run.result))}; "
          f"seeds {of(lambda run: run.config['seed'], ', ')}; commit {of(lambda run: run.result['commit'])}; "
          f"{of(lambda run: run.result['hardware'])}")


def net(run: Run, separator: str = ' ') -> str:
  """The backbone of a run with its depth and width, the latter behind ``separator``."""
  backbone = run.config['model']['backbone']
  width = f"{separator}width {backbone['width']}" if 'width' in backbone else ''
  return f"{backbone['name']} {backbone.get('depth', '')}".strip() + width


def start_of(run: Run) -> str:
  """What a run started from, in words; '' for random parameters."""
  known = run.config.get('init_from')  # Earlier versions wrote down no more.
  return started(run.result['protocol']) or (f'the backbone of {known}' if known else '')


def full_name(run: Run) -> str:
  """The name of a run's config, with the changes of the evaluation."""
  return ' with '.join([run.result['name'], *run.result.get('overrides', [])])


def _identity(run: Run) -> str:
  """Equal for runs that differ in their seed alone."""
  return json.dumps([full_name(run), settings(run)], sort_keys=True)


def _labels(runs: Sequence[Run]) -> list[str]:
  """The names of rows; what differs is added where several would have the same name, the workdir if need be."""
  labels, found = [], [settings(run) for run in runs]
  for run, ours in zip(runs, found, strict=True):
    alike = [theirs for theirs, other in zip(found, runs, strict=True) if other.result['name'] == run.result['name']]
    differing = [f'{key}={value}' for key, value in ours.items() if any(other.get(key) != value for other in alike)]
    more = f', and {len(differing) - 3} more' if len(differing) > 3 else ''
    labels.append(full_name(run) + (f" ({', '.join(differing[:3])}{more})" if differing else ''))
  return [label if labels.count(label) == 1 else f'{label}: {run.workdir}'
          for label, run in zip(labels, runs, strict=True)]
