"""Exact evaluation: every example of a split once, whatever the batch size and the number of devices or processes."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax.data.face import LANDMARK_SOURCES
from fer_jax.data.reading import streams, subsets
from fer_jax.data.triplets import TYPES
from fer_jax.errors import UserError
from fer_jax.metrics.summary import summarise, summarise_subsets
from fer_jax.metrics.triplets import summarise_triplets
from fer_jax.runtime import cluster, storage
from fer_jax.training import config_files, setup, sources, step
from fer_jax.training.workdir import now, read_config, read_run

# Maps drawn before and after training in the report: the first faces of every class, by row, never by result.
PANEL_FACES = 10

# What a table of outputs keeps of the batches.
_KEPT = ('label', 'landmark_source', 'landmark_heatmap', 'causal_mask', 'row', 'mask')

NEIGHBOURS = 6  # Nearest faces that the report shows of one face of every class.


def evaluate_run(workdir: Path, split: str | None = None, *, data_dir: str | None = None, changes: Sequence[str] = (),
                 subset_lists: Sequence[str] = (), copies: bool = False) -> dict[str, Any]:
  """Evaluates the run in ``workdir``; subsets alone are scored from the predictions that are left there, if any.

  Args:
    workdir: of a training run.
    split: of its data set; None: its test split.
    data_dir: where prepared data sets lie, if not where the run's config says.
    changes: 'key=value', applied to the run's config; the result is filed under them.
    subset_lists: files as in ``config.data.subsets``, besides those.
    copies: as ``config.data.copies``.

  Returns:
    The content of the evaluation's JSON file.

  Raises:
    UserError: no run or no checkpoint, a bad change or list, or the data set's classes are no longer the run's.
  """
  config, record = read_config(workdir), read_run(workdir)
  config_files.change_config(config, changes)
  config.data.subsets = (*config.data.subsets, *subset_lists)
  config.data.copies = config.data.copies or copies
  config.data.dir = data_dir or config.data.dir
  split = split or config.data.test
  source = open_split(config, record, split, workdir)
  mesh = cluster.make_mesh()
  cluster.check_batch(config.eval_batch_size, mesh, 'eval_batch_size')
  trained = setup.load(workdir, mesh, config)
  if (subset_lists or copies) and not changes and (result := add_subsets(config, trained.step, source, split, workdir)):
    cluster.say(f"Scored from the predictions of {result['evaluated']}: no further look at {split}.")
    return result
  evaluator = make_evaluator(trained.system, mesh)
  return evaluate_split(config, evaluator, trained.variables, trained.step, source, split, workdir, mesh, changes)


def open_split(config: ConfigDict, record: Mapping[str, Any], split: str, workdir: Path) -> Any:
  """Opens a split of the data set of the run in ``workdir``.

  Raises:
    UserError: it cannot be opened, or the data set's classes are no longer the run's.
  """
  source = sources.open_source(config, split)
  if list(source.classes) != record['classes']:
    raise UserError(f"the run in {workdir} speaks of the classes {', '.join(record['classes'])} in this order, the "
                    f"data set now of {', '.join(source.classes)}; prepare the data set again as the run had it, or "
                    'score frozen features on other classes with fer_jax.transfer.')
  return source


def make_evaluator(system: setup.System, mesh: jax.sharding.Mesh) -> Callable[..., dict[str, Any]]:
  """The evaluation step, to be compiled once for all the batches of a run.

  Of the batch it returns what a table keeps beside the outputs, so that every process has it of all rows.
  """
  def evaluate(variables: Mapping[str, Any], batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    outputs = step.evaluation_step(system.recipe, system.explain, variables, batch)
    return outputs | {name: batch[name] for name in _KEPT if name in batch}

  return jax.jit(evaluate, out_shardings=cluster.replicated(mesh))


def outputs_of(evaluator: Callable[..., dict[str, Any]], variables: Mapping[str, Any], source: Any, batch_size: int,
               mesh: jax.sharding.Mesh, order: str = 'stored') -> dict[str, np.ndarray]:
  """The network's outputs for every example of ``source``, visited in the order ``data.order.evaluation_order`` names.

  Returns:
    A table of arrays whose row i is example i of the split: what ``step.evaluation_step`` returns, and of the batch
    'label', 'landmark_source', and 'landmark_heatmap' and 'causal_mask' where there are.
  """
  pieces = []
  for batch in streams.evaluation_batches(source, batch_size=batch_size, process_index=jax.process_index(),
                                         process_count=jax.process_count(), order=order):
    # Not read yet: the host runs ahead of the devices.
    pieces.append(evaluator(variables, cluster.place(batch, mesh)))
  pieces = jax.device_get(pieces)
  table = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
  rows = np.flatnonzero(table['mask'])
  rows = rows[np.argsort(table['row'][rows])]
  return {name: values[rows] for name, values in table.items()}


def collect(evaluator: Callable[..., dict[str, Any]], variables: Mapping[str, Any], source: Any, batch_size: int,
            mesh: jax.sharding.Mesh, order: str = 'stored') -> dict[str, Any]:
  """Evaluates every example of ``source``.

  Returns:
    The table of ``outputs_of`` with 'prediction', 'nll' (nats, NaN without a label) and, where faces have a landmark
    heatmap, 'landmarks_valid', 'prior' and 'maps' {name: (N, h, w)}.
  """
  table = outputs_of(evaluator, variables, source, batch_size, mesh, order)
  logits = table['logits'].astype(np.float64)
  log_normaliser = np.logaddexp.reduce(logits, axis=1)
  true = np.take_along_axis(logits, np.maximum(table['label'], 0)[:, None], axis=1)[:, 0]
  table['nll'] = np.where(table['label'] >= 0, log_normaliser - true, np.nan)
  table['prediction'] = logits.argmax(axis=1)
  if 'landmark_heatmap' in table:
    trusted = table['landmark_source'] >= LANDMARK_SOURCES.index('detector')
    table['landmarks_valid'] = trusted & (table['landmark_heatmap'].max(axis=(1, 2)) > 0)
    table['prior'] = table['landmark_heatmap']
    table['maps'] = {name[4:]: table[name] for name in table if name.startswith('map/')}
  return table


def evaluate_split(config: ConfigDict, evaluator: Callable[..., dict[str, Any]], variables: Mapping[str, Any], at: int,
                   source: Any, split: str, workdir: Path, mesh: jax.sharding.Mesh, overrides: Sequence[str] = (),
                   finishes: bool = False) -> dict[str, Any]:
  """Evaluates a split, writes ``WORKDIR/evaluation/<split>.json`` and returns its content.

  The file counts how often this split was looked at in this workdir: a test split looked at twice has been selected on.
  ``overrides``, the changes 'key=value' to the run's config (they are in ``config`` already), extend the file's name.
  With the test split goes the scoring of ``config.comparisons``. ``finishes``: this ends the training run, which gets
  its nearest neighbours, and 'finished' in its record at one with the count of looks.
  """
  table = collect(evaluator, variables, source, config.eval_batch_size, mesh, config.eval_order)
  if 'maps' in table:
    table |= sources.unit_maps(config, source)
  result = summarise(table, source.classes) | _subset_rates(config, source, table['label'], table['prediction'])
  path = _path(workdir, split, overrides)
  record = read_run(workdir)
  if config.comparisons and split == config.data.test:
    result['triplets'] = _score_comparisons(config, record.get('channels', 0), evaluator, variables, mesh)
  looks = record.get('looks', {}).get(split, 0) + 1
  result |= {
      'protocol': make_protocol(config, record, source, split) | {'looks': looks, 'n': result['count']},
      'overrides': list(overrides), 'step': at, 'name': config.name, 'seeds': 1, 'seed': config.seed,
      'commit': record['commit'], 'hardware': cluster.hardware(), 'evaluated': now()}
  storage.write_json(path, result)
  storage.write_npz(path.with_suffix('.npz'), label=table['label'], prediction=table['prediction'],
                    logits=table['logits'], classes=np.array(source.classes))
  if finishes:
    draw_neighbours(table, source, workdir)
  storage.write_json(workdir / 'run.json', record | {'looks': record.get('looks', {}) | {split: looks}}
                     | ({'finished': now()} if finishes else {}))
  return result


def make_protocol(config: ConfigDict, record: Mapping[str, Any], source: Any, split: str) -> dict[str, Any]:
  """What a number measured on a split of the run's data set rests on, and whether it is leaky (``reports.table``)."""
  seen = split in config.data.train.split('+')
  # Then logits depend on which images share a batch, and files are sorted by class more often than not.
  batch_mean = config.model.head.get('global_mean') == 'batch'
  leaky = seen or batch_mean or (config.select == 'best_on_test' and split == config.data.test)
  return {
      'dataset': config.data.dataset, 'variant': config.data.variant, 'split': split,
      'trained_on': config.data.train, 'select': config.select, 'leaky': leaky,
      'K': len(source.classes), 'seen_in_training': seen, 'fingerprint': source.fingerprint,
      **_other_data(record, source),
      **({'eval_order': config.eval_order, 'eval_batch_size': config.eval_batch_size} if batch_mean else {})}


def _other_data(record: Mapping[str, Any], source: Any) -> dict[str, Any]:
  """Digests of the data at training and now, where they differ."""
  then = record.get('digest')
  return {'other_data': [then, source.digest]} if then and source.digest not in ('', then) else {}


def _score_comparisons(config: ConfigDict, channels: int, evaluator: Callable[..., dict[str, Any]],
                       variables: Mapping[str, Any], mesh: jax.sharding.Mesh) -> dict[str, Any]:
  """Triplet accuracy of the embedding, by the name of each entry of ``config.comparisons``."""
  scores = {}
  for name, (faces, triplets) in sources.open_comparisons(config, channels).items():
    embedding = outputs_of(evaluator, variables, faces, config.eval_batch_size, mesh)['embedding']
    options = config.comparisons[name]
    truth = f"{options.get('dataset') or config.data.dataset} {options.split}: {triplets.truth}"
    scores[name] = {'truth': truth, 'dim': embedding.shape[1],
                    **summarise_triplets(embedding, triplets.rows, triplets.types, TYPES, triplets.listed)}
  return scores


def add_subsets(config: ConfigDict, at: int, source: Any, split: str, workdir: Path) -> dict[str, Any] | None:
  """Scores the config's subsets from the predictions that ``evaluate_split`` left, which is no further look.

  Returns:
    The content of ``WORKDIR/evaluation/<split>.json`` with the subsets, written anew; None where no predictions of step
    ``at`` on this very data are left.
  """
  if not (left := saved(at, source, split, workdir)):
    return None
  result, predictions = left
  found = _subset_rates(config, source, predictions['label'], predictions['prediction'])
  known = result.get('subsets', {}) | found.get('subsets', {})
  result |= found | ({'subsets': known} if known else {})
  storage.write_json(_path(workdir, split), result)
  return result


def saved(at: int, source: Any, split: str, workdir: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
  """What ``evaluate_split`` left of a split, the result and its table; None where none is of step ``at`` on this data.
  """
  path = _path(workdir, split)
  try:
    result, predictions = storage.read_json(path), storage.read_npz(path.with_suffix('.npz'))
    label, _ = predictions['label'], predictions['prediction']
  except (OSError, ValueError, KeyError):
    return None
  same = result['step'] == at and result['protocol']['fingerprint'] == source.fingerprint
  return (result, predictions) if same and np.array_equal(label, source.labels) else None


def _subset_rates(config: ConfigDict, source: Any, label: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
  """The results on the config's subsets of a split, see ``summarise_subsets``; empty where it names none."""
  lists = subsets.read_lists(config.data.subsets)
  found = {name: subsets.match(entries, source.names, source.labels) for name, entries in lists.items()}
  originals = None
  if config.data.copies:
    originals = subsets.without_copies(source.records, sources.open_source(config, config.data.train).records)
  return summarise_subsets(label, prediction, len(source.classes), found, originals)


def draw_neighbours(table: Mapping[str, Any], source: Any, workdir: Path) -> None:
  """Writes neighbours.npz: a face of every class, the first by row, and the test faces of the nearest embeddings.

  Args:
    table: from ``collect``.
    source: the split.
    workdir: of the run.
  """
  label, embedding = table['label'], table['embedding'].astype(np.float64)
  rows, distances = [], []
  for k in range(len(source.classes)):
    for query in np.flatnonzero(label == k)[:1]:
      squared = np.square(embedding - embedding[query]).sum(axis=1)
      squared[query] = -1  # Itself first, even where a copy is as near.
      nearest = np.argsort(squared, kind='stable')[:1 + NEIGHBOURS]
      rows.append(nearest)
      distances.append(np.sqrt(np.maximum(squared[nearest], 0)))
  if not rows:
    return
  images = [[source.example(int(row))['image'] for row in nearest] for nearest in rows]
  storage.write_npz(workdir / 'neighbours.npz', images=np.array(images), labels=label[np.array(rows)],
                    distances=np.array(distances, np.float32))


def _path(workdir: Path, split: str, overrides: Sequence[str] = ()) -> Path:
  changes = [re.sub(r'[^\w.=+-]+', '_', re.sub('[\'" ]', '', change)) for change in overrides]
  return workdir / 'evaluation' / f"{','.join([split, *changes])}.json"


def draw_panel(evaluator: Callable[..., dict[str, Any]], before: Mapping[str, Any], after: Mapping[str, Any],
               source: Any, batch_size: int, workdir: Path, mesh: jax.sharding.Mesh) -> None:
  """Writes panel.npz: a few faces with their prior and their attribution maps before and after training."""
  labels = np.asarray(source.labels)
  firsts = [np.flatnonzero(labels == k)[:2] for k in range(len(source.classes))]
  rows = [f[i] for i in range(2) for f in firsts if len(f) > i][:min(PANEL_FACES, batch_size)]
  faces = streams.rows(source, rows)
  # Filled up to a whole evaluation batch, which is compiled already.
  padded = {name: np.resize(values, (batch_size, *values.shape[1:])) for name, values in faces.items()}
  padded['mask'] = np.arange(batch_size) < len(rows)
  panel = {'images': faces['image'], 'labels': faces['label'], 'names': np.array([source.names[row] for row in rows])}
  drawn = {'priors': 'landmark_heatmap', 'causal_masks': 'causal_mask'}
  panel |= {name: faces[field] for name, field in drawn.items() if field in faces}
  for when, variables in (('before', before), ('after', after)):
    outputs = {name: values[: len(rows)] for name, values in
               jax.device_get(evaluator(variables, cluster.place(cluster.own_rows(padded), mesh))).items()}
    panel |= {f'{when}/{name[4:]}': values for name, values in outputs.items() if name.startswith('map/')}
    panel['predictions'] = outputs['logits'].argmax(axis=1)
  storage.write_npz(workdir / 'panel.npz', **panel)
