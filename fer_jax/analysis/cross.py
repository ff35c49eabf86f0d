"""Networks on each other's test splits: what one data set teaches, seen on another, over the classes both have.

``plan`` lists the trainings, for ``queue.train_all``; ``measure`` tests what they have left.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax.analysis import transfer
from fer_jax.analysis.queue import Job, make_job
from fer_jax.data.reading import splits
from fer_jax.errors import UserError
from fer_jax.metrics.confusion import confusion_matrix
from fer_jax.metrics.shared import restrict, shared_classes
from fer_jax.metrics.summary import overall
from fer_jax.reports.runs import Run, by_config
from fer_jax.runtime import cluster, storage
from fer_jax.training import config_files, evaluation, protocol, setup
from fer_jax.training.data import Data
from fer_jax.training.workdir import is_claimed, now, read_config, read_finished


@dataclasses.dataclass(frozen=True)
class Test:
  """A split that networks are tested on: ``dataset``, ``variant``, ``split`` and ``folder`` as in ``open_split``."""

  dataset: str
  variant: str
  split: str
  folder: str = ''


def parse(text: str) -> tuple[str, str, str]:
  """Data set, variant and split of 'NAME', 'NAME/VARIANT' or either with ':SPLIT'; '' for what is not said.

  Raises:
    UserError: another form.
  """
  found = re.fullmatch(r'(\w+)(?:/([\w-]+))?(?::(.+))?', text)
  if not found:
    raise UserError(f"--datasets: '{text}': write NAME, NAME/VARIANT or NAME/VARIANT:SPLIT, such as fer2013/votes.")
  return found[1], found[2] or '', found[3] or ''


def plan(config: str, datasets: Sequence[str], seeds: int, workdir: str, changes: Sequence[str] = ()) -> list[Job]:
  """The trainings of a matrix, seed by seed, checked before anything starts.

  Args:
    config: 'PATH' or 'PATH:ARGUMENT', where '*' in the argument stands for the data set.
    datasets: 'NAME' or 'NAME/VARIANT'.
    workdir: of the matrix; the runs lie in WORKDIR/NAME-SEED.
    changes: 'key=value', to every config.

  Raises:
    UserError: fewer than two data sets, a bad config or change, a data set that is not there, two that share fewer than
      two classes, or a run of other settings is in the way.
  """
  parsed = [parse(text) for text in dict.fromkeys(datasets)]
  if len(parsed) < 2:
    raise UserError('--datasets: name two data sets at least, such as --datasets=ferplus,fer2013.')
  if split := next((split for *_, split in parsed if split), ''):
    raise UserError(f"--datasets: the config says which splits are trained and tested on; leave out ':{split}', or "
                    f'give --set=data.test={split}.')
  if workdir.startswith('gs://'):
    raise UserError(f'--workdir={workdir}: a bucket has no locks to divide the runs by. Train the runs one by one and '
                    'then use --workdirs, or choose a folder that the workers share.')
  for key in {change.partition('=')[0] for change in changes} & {'seed', 'data.dataset', 'data.variant'}:
    raise UserError(f'--set={key}: every run has its own; --seeds and --datasets say which there are.')
  trainings, classes = [], []
  for name, variant, _ in parsed:
    argument = (config if '*' in config else f'{config}:*').replace('*', name)
    row, own = (f'{name}_{variant}', [*changes, f'data.variant={variant}']) if variant else (name, changes)
    made = config_files.load_config(argument, own)
    trainings.append((row, made, argument, config_files.arguments(made, own)))
    data = setup.make_protocol(made).data
    classes.append(data.open(data.test).classes)
  for ours, theirs in itertools.combinations(classes, 2):
    shared_classes(ours, theirs)
  jobs = []
  for seed in range(seeds):
    for row, made, argument, more in trainings:
      jobs.append(make_job(workdir, row, seed, argument, more))
      made.seed = seed
      is_claimed(jobs[-1].workdir, setup.settings(made))
  return jobs


def own_test(data: Data | ConfigDict) -> Test:
  """The test split of a run's own data set."""
  return Test(data.dataset, data.variant, data.test, data.dir)


def measure(workdirs: Sequence[Path], more: Sequence[Test] = ()) -> dict[str, Any]:
  """Tests runs on the test splits of all their data sets.

  A run's predictions for its own test split are those of its evaluation, where they are left: no further look at it.

  Args:
    workdirs: of finished runs; those that differ in their seed alone become one row.
    more: further test splits.

  Returns:
    What ``WORKDIR/cross.json`` holds. tests: those of the columns, and cells, one for each row and test:
      row, config (its name), tested_on; own: whether the test is of the data set that the row was trained on;
      classes: those that both have, left_out {class of the test: faces}, count: faces of the shared classes; chance of
      a guess, majority: the largest shared class and its share; duplicates: faces that the training split has too;
      runs [{workdir, ``evaluation.stamp``, count, accuracy, accuracy_interval (Wilson), mean_class_accuracy, own_test:
      these rates of the same network and classes on its own test split, without_duplicates: rates or None, leaks}].

  Raises:
    UserError: a run that has not finished, one data set alone, two that share fewer than two classes, or none that has
      faces of them.
  """
  mesh = cluster.make_mesh()
  found, tests = [], []
  for workdir in workdirs:
    record, config = read_finished(workdir), read_config(workdir)
    # Runs are told apart by their configs alone.
    found.append(Run(str(workdir), config.to_dict(), record, {'name': config.name, 'protocol': {'fingerprint': ''}}))
    tests.append(own_test(config.data))
  names, cells = _names(list(dict.fromkeys([*tests, *more]))), []
  if len(names) < 2:
    raise UserError(f"there is one test split only, {', '.join(names.values())}: a matrix needs two data sets.")
  for label, runs in _rows(found, names).items():
    row: dict[Test, dict[str, Any]] = {}
    for one in runs:
      for test, (facts, result) in _test(storage.as_path(one.workdir), list(names), mesh).items():
        cell = row.setdefault(test, {'row': label, 'tested_on': names[test], **facts, 'runs': []})
        if differing := [key for key in facts if facts[key] != cell[key]]:
          raise UserError(f"{one.workdir} and {runs[0].workdir} differ in {', '.join(differing)} on {names[test]}: "
                          'they were trained on different data.')
        cell['runs'].append(result)
    cells += row.values()
  return {'tests': [dataclasses.asdict(test) | {'name': name} for test, name in names.items()], 'cells': cells,
          'hardware': cluster.hardware(), 'measured': now()}


def _names(tests: Sequence[Test]) -> dict[Test, str]:
  """The shortest names of one form that tell test splits apart."""
  forms = ('{0.dataset}', '{0.dataset}/{0.variant}', '{0.dataset}/{0.variant}:{0.split}',
           '{0.dataset}/{0.variant}:{0.split} in {0.folder}')
  every = ({test: form.format(test) for test in tests} for form in forms)
  return next(names for names in every if len(set(names.values())) == len(tests))


def _rows(runs: Sequence[Run], names: Mapping[Test, str]) -> dict[str, list[Run]]:
  """Runs by the name of their row: the data set, the config's name where there are several, and else what differs."""
  groups, several = by_config(runs), len({run.config['name'] for run in runs}) > 1
  labels = [f'{group[0].config["name"]} on ' * several
            + names[own_test(ConfigDict(group[0].config).data)].partition(':')[0] for group in groups.values()]
  return dict(zip(labels if len(set(labels)) == len(labels) else groups, groups.values(), strict=True))


def _test(workdir: Path, tests: Sequence[Test], mesh: jax.sharding.Mesh
          ) -> dict[Test, tuple[dict[str, Any], dict[str, Any]]]:
  """One run on all tests: {test: (facts that its seeds share, its result)}."""
  trained = setup.load(workdir, mesh)
  data, known = trained.protocol.data, trained.record['classes']
  network, mine = transfer.evaluator(trained, mesh), own_test(data)
  opened = {test: transfer.open_faces(trained, test.dataset, test.variant, test.split, test.folder) for test in tests}
  tables = {test: _outputs(trained, network, source, test, mesh) for test, source in opened.items()}
  learned = _images(dataclasses.replace(mine, split=data.train), tuple(data.classes))
  answers = lambda test, shared: restrict(*tables[test], known, opened[test].classes, shared)
  rates = lambda label, prediction, shared: overall(confusion_matrix(label, prediction, len(shared)))
  results = {}
  for test, source in opened.items():
    shared = shared_classes(known, source.classes)
    label, prediction = answers(test, shared)
    counts = np.bincount(label[label >= 0], minlength=len(shared))
    if not counts.any():
      raise UserError(f"{test.split} of {test.dataset} has no face of the classes {', '.join(shared)}.")
    stored = tables[test][0]
    others = np.bincount(stored[(stored >= 0) & (label < 0)], minlength=len(source.classes))
    learnt = np.isin(source.images, learned) & (label >= 0)
    leaks = protocol.verdict(trained.protocol, trained.seen(), source, test.split)['reasons']
    facts = {
        'config': trained.protocol.name, 'own': test == mine, 'classes': list(shared), 'count': int(counts.sum()),
        'left_out': {name: int(n) for name, n in zip(source.classes, others, strict=True) if n},
        'chance': 1 / len(shared), 'duplicates': int(learnt.sum()),
        'majority': {'class': shared[int(counts.argmax())], 'share': float(counts.max() / counts.sum())}}
    results[test] = facts, {
        **evaluation.stamp(trained), 'workdir': str(workdir), 'leaks': leaks,
        **rates(label, prediction, shared), 'own_test': rates(*answers(mine, shared), shared),
        'without_duplicates': rates(np.where(learnt, -1, label), prediction, shared) if learnt.any() else None}
  return results


def _outputs(trained: setup.Trained, network: Any, source: splits.Split, test: Test, mesh: jax.sharding.Mesh
             ) -> tuple[np.ndarray, np.ndarray]:
  """Labels (N,) and logits (N, K); those that the run's evaluation left of its own test split, if it did."""
  mine, ours = test == own_test(trained.protocol.data), trained.protocol
  if mine and (left := evaluation.saved(trained, source, test.split)):
    return left[1]['label'], left[1]['logits']
  table = evaluation.outputs_of(network, trained.variables, source, ours.eval_batch_size, mesh, ours.eval_order)
  if mine:
    storage.write_json(trained.workdir / 'run.json',
                       trained.record | {'evaluations': protocol.evaluated(trained.record, source, test.split)[0]})
  return table['label'], table['logits']


@functools.cache
def _images(split: Test, classes: tuple[str, ...] = ()) -> np.ndarray:
  """Digests of a split's images, or of those of some classes; every split is read once for all runs."""
  return splits.open_split(split.dataset, split.variant, split.split, split.folder, classes=classes).images
