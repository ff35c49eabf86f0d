"""Exact evaluation: every example of a split once, whatever the batch size and the number of devices or processes."""

import collections
import dataclasses
import functools
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from fer_jax.data.face import LANDMARK_SOURCES
from fer_jax.data.reading import streams, subsets
from fer_jax.data.reading.splits import Split
from fer_jax.data.triplets import TYPES
from fer_jax.errors import UserError
from fer_jax.metrics import action_units
from fer_jax.metrics.summary import summarise, summarise_subsets
from fer_jax.metrics.triplets import summarise_triplets
from fer_jax.runtime import cluster, storage
from fer_jax.training import calibration, privacy, setup
from fer_jax.training.protocol import Protocol, describe, evaluated, verdict
from fer_jax.training.workdir import now, read_run

# Maps drawn before and after training in the report: the first faces of every class, by row, never by result.
PANEL_FACES = 10

_BEHIND = 2  # Batches that are under way while the outputs of the one before them leave the devices.

NEIGHBOURS = 6  # Nearest faces that the report shows of one face of every class.

Evaluator = Callable[..., dict[str, Any]]  # From variables and a host batch, see ``setup.make_evaluator``.


def evaluate_run(workdir: str | os.PathLike[str], split: str | None = None, *, data_dir: str | None = None,
                 changes: Sequence[str] = (), subset_lists: Sequence[str] = (), duplicates: bool = False
                 ) -> dict[str, Any]:
  """Evaluates the run in ``workdir``; subsets alone are scored from the predictions that are left there, if any.

  Args:
    split: of its data set; None: its test split.
    data_dir: where prepared data sets lie, if not where the run's config says.
    changes: 'key=value', applied to the run's config; the result is filed under them.
    subset_lists: files as in ``config.data.subsets``, besides those.
    duplicates: as ``config.data.duplicates``.

  Returns:
    The content of the evaluation's JSON file.

  Raises:
    UserError: no run or no checkpoint, a bad change or list, or the data set's classes are no longer the run's.
  """
  mesh = cluster.make_mesh()
  trained = setup.load(workdir, mesh, changes, data_dir)
  data = trained.protocol.data
  data = dataclasses.replace(data, subsets=(*data.subsets, *subset_lists), duplicates=data.duplicates or duplicates)
  trained = dataclasses.replace(trained, protocol=dataclasses.replace(trained.protocol, data=data))
  split = split or data.test
  faces = open_split(trained, split)
  cluster.check_batch(trained.protocol.eval_batch_size, mesh, 'eval_batch_size')
  if (subset_lists or duplicates) and not changes and (result := add_subsets(trained, faces, split)):
    cluster.say(f"Scored from the predictions of {result['evaluated']}: no further evaluation of {split}.")
    return result
  return evaluate_split(trained, setup.make_evaluator(trained.system, mesh), faces, split, mesh, changes)


def open_split(trained: setup.Trained, split: str) -> Split:
  """Opens a split of the data set of a run.

  Raises:
    UserError: it cannot be opened, or the data set's classes are no longer the run's.
  """
  faces, classes = trained.protocol.data.open(split), trained.record['classes']
  if list(faces.classes) != classes:
    raise UserError(f"the run in {trained.workdir} speaks of the classes {', '.join(classes)} in this order, the data "
                    f"set now of {', '.join(faces.classes)}; prepare the data set again as the run had it, or score "
                    'frozen features on other classes with fer_jax.transfer.')
  return faces


def outputs_of(evaluator: Evaluator, variables: Mapping[str, Any], faces: Split, batch_size: int, mesh: Mesh,
               order: str = 'stored', fields: Collection[str] | None = None) -> dict[str, np.ndarray]:
  """The network's outputs for every example of a split, visited in the order ``order.evaluation_order`` names.

  The host runs ahead of the devices by ``_BEHIND`` batches, and their memory holds the outputs of no more.

  Returns:
    A table of arrays whose row i is example i of the split: what ``step.evaluation_step`` returns.
  """
  pieces, left = [], collections.deque()
  threads = 1 if jax.default_backend() == 'cpu' else 4  # There the cores are the network's.
  for batch in streams.evaluation_batches(faces, batch_size=batch_size, process_index=jax.process_index(),
                                          process_count=jax.process_count(), order=order, fields=fields,
                                          threads=threads):
    left.append(evaluator(variables, cluster.place(batch, mesh)))
    if len(left) > _BEHIND:
      pieces.append(jax.device_get(left.popleft()))
  pieces += jax.device_get([*left])
  table = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
  rows = np.flatnonzero(table['mask'])
  rows = rows[np.argsort(table['row'][rows])]
  return {name: values[rows] for name, values in table.items()}


def collect(evaluator: Evaluator, variables: Mapping[str, Any], faces: Split, batch_size: int, mesh: Mesh,
            order: str = 'stored', fields: Collection[str] | None = None) -> dict[str, Any]:
  """Evaluates every example of a split.

  Args:
    fields: those that the evaluator reads; None: all.

  Returns:
    The table of ``outputs_of`` with 'prediction', 'nll' (nats, NaN without a label) and, where faces have a landmark
    heatmap and the evaluator draws maps, 'landmarks_valid', 'prior' and 'maps' {name: (N, h, w)}.
  """
  table = outputs_of(evaluator, variables, faces, batch_size, mesh, order, fields)
  table |= answers(table['logits'], table['label'])
  if 'landmark_heatmap' in table:
    trusted = table['landmark_source'] >= LANDMARK_SOURCES.index('detector')
    table['landmarks_valid'] = trusted & (table['landmark_heatmap'].max(axis=(1, 2)) > 0)
    table['prior'] = table['landmark_heatmap']
    table['maps'] = {name[4:]: table[name] for name in table if name.startswith('map/')}
  return table


def answers(logits: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
  """Of logits (N, K) and labels (N,) int, 'prediction' (N,) int and 'nll' (N,) float64, nats, NaN without a label."""
  logits = logits.astype(np.float64)
  log_normaliser = np.logaddexp.reduce(logits, axis=1)
  true = np.take_along_axis(logits, np.maximum(label, 0)[:, None], axis=1)[:, 0]
  return {'nll': np.where(label >= 0, log_normaliser - true, np.nan), 'prediction': logits.argmax(axis=1)}


def evaluate_split(trained: setup.Trained, evaluator: Evaluator, faces: Split, split: str, mesh: Mesh,
                   changes: Sequence[str] = (), finishes: bool = False) -> dict[str, Any]:
  """Evaluates a split, writes ``WORKDIR/evaluation/<split>.json`` and returns its content.

  The file counts how often this split was evaluated in this workdir: a test split evaluated twice has been selected on.
  Where the network has a calibration, its numbers stand beside the others.
  With the test split goes the scoring of ``config.comparisons``.

  Args:
    changes: 'key=value' to the run's config (they are in ``trained`` already), which extend the file's name.
    finishes: this ends the training run, which gets its nearest neighbours, and 'finished' in its record at one with
      the count of evaluations. What a killed end has left is taken: it has seen the split.
  """
  protocol, workdir, record = trained.protocol, trained.workdir, read_run(trained.workdir)
  ended = lambda evaluations: storage.write_json(
      workdir / 'run.json', record | {'evaluations': evaluations} | ({'finished': now()} if finishes else {}))
  if finishes and (left := saved(trained, faces, split)):
    ended({split: 1} | record.get('evaluations', {}))
    return left[0]
  table = collect(evaluator, trained.variables, faces, protocol.eval_batch_size, mesh, protocol.eval_order)
  # Other processes would draw the same maps. What was calibrated is the network as it is, not one of other functions.
  result = cluster.once(lambda: _summary(trained, faces, table) | (
      {} if changes else calibration.measured(trained, faces, table['logits'])))
  if protocol.data.comparisons and split == protocol.data.test:
    result['triplets'] = _score_comparisons(trained, record.get('channels', 0), evaluator, mesh)
  evaluations, times = evaluated(record, faces, split)
  about = describe(protocol, record, trained.seen(), faces, split)
  result |= {
      'protocol': about | {'evaluations': times, 'n': result['count']},
      'overrides': list(changes), **stamp(trained)}
  path = _path(workdir, split, changes)
  if finishes and cluster.is_main():
    draw_neighbours(table, faces, workdir, privacy.keeps(protocol, faces))
  storage.write_npz(path.with_suffix('.npz'), label=table['label'], prediction=table['prediction'],
                    logits=table['logits'], classes=np.array(faces.classes))
  storage.write_json(path, result)  # Behind all others: it says that they are there.
  ended(evaluations)
  return result


def _summary(trained: setup.Trained, faces: Split, table: Mapping[str, Any]) -> dict[str, Any]:
  """What JSON holds of a table of ``collect``: its summary, and that of the config's subsets."""
  if 'maps' in table:
    table = {**table, 'unit_maps': functools.partial(faces.unit_maps, size=action_units.SIZE),
             'attention': [name for name, options in trained.system.explain.items()
                           if options['attribution'] == 'activation'],
             'training_mean': trained.protocol.data.training_mean()}
  return summarise(table, faces.classes) | _subset_rates(
      trained.protocol, faces, table['label'], table['prediction'])


def stamp(trained: setup.Trained) -> dict[str, Any]:
  """What a result of a run is filed with: of which network it is, by which code, where and when."""
  return {'step': trained.step, 'name': trained.protocol.name, 'seed': trained.protocol.seed,
          'commit': trained.record['commit'], 'hardware': cluster.hardware(), 'evaluated': now()}


def _score_comparisons(trained: setup.Trained, channels: int, evaluator: Evaluator, mesh: Mesh) -> dict[str, Any]:
  """Triplet accuracy of the embedding, by the name of each entry of ``config.comparisons``."""
  scores, protocol = {}, trained.protocol
  for name, (faces, triplets) in protocol.data.open_comparisons(channels).items():
    embedding = outputs_of(evaluator, trained.variables, faces, protocol.eval_batch_size, mesh)['embedding']
    options = protocol.data.comparisons[name]
    truth = f"{options.get('dataset') or protocol.data.dataset} {options['split']}: {triplets.truth}"
    about = verdict(protocol, trained.seen(), faces, options['split'])
    scores[name] = {'truth': truth, 'dim': embedding.shape[1], 'protocol': about,
                    **summarise_triplets(embedding, triplets.rows, triplets.types, TYPES, triplets.listed)}
  return scores


def add_subsets(trained: setup.Trained, faces: Split, split: str) -> dict[str, Any] | None:
  """Scores the config's subsets from the predictions that ``evaluate_split`` left: no further evaluation.

  Returns:
    The content of ``WORKDIR/evaluation/<split>.json`` with the subsets, written anew; None where no predictions of this
    step on this very data are left.
  """
  if not (left := saved(trained, faces, split)):
    return None
  result, predictions = left
  found = _subset_rates(trained.protocol, faces, predictions['label'], predictions['prediction'])
  known = result.get('subsets', {}) | found.get('subsets', {})
  result |= found | ({'subsets': known} if known else {})
  storage.write_json(_path(trained.workdir, split), result)
  return result


def saved(trained: setup.Trained, faces: Split, split: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
  """What ``evaluate_split`` left of a split, the result and its table; None where none is of this step and data."""
  path = _path(trained.workdir, split)
  try:
    result, predictions = storage.read_json(path), storage.read_npz(path.with_suffix('.npz'))
    label, _ = predictions['label'], predictions['prediction']
  except (OSError, ValueError, KeyError):
    return None
  same = result['step'] == trained.step and result['protocol']['fingerprint'] == faces.fingerprint
  return (result, predictions) if same and np.array_equal(label, faces.labels) else None


def _subset_rates(protocol: Protocol, faces: Split, label: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
  """The results on the config's subsets of a split, see ``summarise_subsets``; empty where it names none."""
  lists = subsets.read_lists(protocol.data.subsets)
  found = {name: subsets.match(entries, faces.names, faces.labels) for name, entries in lists.items()}
  originals = None
  if protocol.data.duplicates:
    originals = ~np.isin(faces.images, protocol.data.open(protocol.data.train).images)
  return summarise_subsets(label, prediction, len(faces.classes), found, originals)


def draw_neighbours(table: Mapping[str, Any], faces: Split, workdir: epath.Path, keeps_faces: bool) -> None:
  """Writes neighbours.npz: a face of every class, the first by row, and the test faces of the nearest embeddings.

  Args:
    table: from ``collect``.
    keeps_faces: whether with their images.
  """
  label, embedding = table['label'], table['embedding'].astype(np.float64)
  rows, distances = [], []
  for k in range(len(faces.classes)):
    for query in np.flatnonzero(label == k)[:1]:
      squared = np.square(embedding - embedding[query]).sum(axis=1)
      squared[query] = -1  # Itself first, even where a duplicate is as near.
      nearest = np.argsort(squared, kind='stable')[:1 + NEIGHBOURS]
      rows.append(nearest)
      distances.append(np.sqrt(np.maximum(squared[nearest], 0)))
  if not rows:
    return
  found = {'labels': label[np.array(rows)], 'distances': np.array(distances, np.float32)}
  if keeps_faces:
    found['images'] = np.array([[faces.example(int(row))['image'] for row in nearest] for nearest in rows])
  storage.write_npz(workdir / 'neighbours.npz', **found)


def draw_panel(trained: setup.Trained, untrained: Mapping[str, Any], evaluator: Evaluator, faces: Split, mesh: Mesh
               ) -> None:
  """Writes panel.npz: of a few faces, or with the mean face for them, prior and maps before and after training.

  Args:
    untrained: the variables before its training.
  """
  labels, batch_size = np.asarray(faces.labels), trained.protocol.eval_batch_size
  firsts = [np.flatnonzero(labels == k)[:2] for k in range(len(faces.classes))]
  rows = [f[i] for i in range(2) for f in firsts if len(f) > i][:min(PANEL_FACES, batch_size)]
  shown = streams.rows(faces, rows)
  # Filled up to a whole evaluation batch, which is compiled already.
  padded = {name: np.resize(values, (batch_size, *values.shape[1:])) for name, values in shown.items()}
  padded['mask'] = np.arange(batch_size) < len(rows)
  panel = {'labels': shown['label'], 'names': np.array([faces.names[row] for row in rows])}
  panel |= ({'images': shown['image']} if privacy.keeps(trained.protocol, faces) else
            {'mean_face': privacy.mean_face(faces)})
  drawn = {'priors': 'landmark_heatmap', 'causal_masks': 'causal_mask'}
  panel |= {name: shown[field] for name, field in drawn.items() if field in shown}
  for when, variables in (('before', untrained), ('after', trained.variables)):
    outputs = {name: values[: len(rows)] for name, values in
               jax.device_get(evaluator(variables, cluster.place(cluster.own_rows(padded), mesh))).items()}
    panel |= {f'{when}/{name[4:]}': values for name, values in outputs.items() if name.startswith('map/')}
    panel['predictions'] = outputs['logits'].argmax(axis=1)
  storage.write_npz(trained.workdir / 'panel.npz', **panel)


def _path(workdir: epath.Path, split: str, changes: Sequence[str] = ()) -> epath.Path:
  named = [re.sub(r'[^\w.=+-]+', '_', re.sub('[\'" ]', '', change)) for change in changes]
  return workdir / 'evaluation' / f"{','.join([split, *named])}.json"
