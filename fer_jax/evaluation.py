"""Exact evaluation: every example of a split once, whatever the batch size and the number of devices or processes."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from fer_jax import cluster, run, step
from fer_jax.data import stream
from fer_jax.data.face import LANDMARK_SOURCES
from fer_jax.metrics.summary import summarise

# Maps drawn before and after training in the report: the first faces of every class, by row, never by result.
PANEL_FACES = 10


def make_evaluator(setup: run.Setup, mesh: jax.sharding.Mesh) -> Callable[..., dict[str, Any]]:
  """The evaluation step, to be compiled once for all the batches of a run."""
  evaluate = functools.partial(step.evaluation_step, setup.recipe, setup.explain)
  return jax.jit(evaluate, out_shardings=cluster.replicated(mesh))


def collect(evaluator: Callable[..., dict[str, Any]], variables: Mapping[str, Any], source: Any, batch_size: int,
            mesh: jax.sharding.Mesh) -> dict[str, np.ndarray]:
  """Evaluates every example of ``source``.

  Returns:
    A table of arrays whose row i is example i of the split: 'label', 'prediction', 'nll' (nats, NaN without a label),
    'landmarks_valid', 'landmark_heatmap', 'causal_mask' where there is one, 'logits' and 'maps' {name: (N, h, w)}.
  """
  kept = ('label', 'landmark_source', 'landmark_heatmap', 'causal_mask', 'row', 'mask')
  pieces = []
  for batch in stream.evaluation_batches(source, batch_size=batch_size, process_index=jax.process_index(),
                                         process_count=jax.process_count()):
    outputs = evaluator(variables, cluster.place(batch, mesh))
    facts = {name: batch[name] for name in kept if name in batch}
    if jax.process_count() > 1:
      facts = multihost_utils.process_allgather(facts, tiled=True)
    pieces.append((facts, outputs))  # Not read yet: the host runs ahead of the devices.
  rows = [{**facts, **jax.device_get(outputs)} for facts, outputs in pieces]
  table = {name: np.concatenate([piece[name] for piece in rows]) for name in rows[0]}
  order = np.flatnonzero(table['mask'])
  order = order[np.argsort(table['row'][order], kind='stable')]
  table = {name: values[order] for name, values in table.items()}
  logits = table['logits'].astype(np.float64)
  log_normaliser = np.logaddexp.reduce(logits, axis=1)
  true = np.take_along_axis(logits, np.maximum(table['label'], 0)[:, None], axis=1)[:, 0]
  table['nll'] = np.where(table['label'] >= 0, log_normaliser - true, np.nan)
  table['prediction'] = logits.argmax(axis=1)
  trusted = table['landmark_source'] >= LANDMARK_SOURCES.index('detector')
  table['landmarks_valid'] = trusted & (table['landmark_heatmap'].max(axis=(1, 2)) > 0)
  table['prior'] = table['landmark_heatmap']
  table['maps'] = {name[4:]: table[name] for name in table if name.startswith('map/')}
  return table


def evaluate_split(config: ConfigDict, evaluator: Callable[..., dict[str, Any]], variables: Mapping[str, Any], at: int,
                   source: Any, split: str, workdir: Path, mesh: jax.sharding.Mesh) -> dict[str, Any]:
  """Evaluates a split, writes ``WORKDIR/evaluation/<split>.json`` and returns its content.

  The file counts how often this split was looked at in this workdir: a test split looked at twice has been selected on.
  """
  table = collect(evaluator, variables, source, config.eval_batch_size, mesh)
  result = summarise(table, source.classes)
  path = workdir / 'evaluation' / f'{split}.json'
  record = run.read_run(workdir)
  looks = record.get('looks', {}).get(split, 0) + 1
  trained_on = config.data.train.split('+')
  seen = split in trained_on
  leaky = seen or (config.select == 'best_on_test' and split == config.data.test)
  result |= {
      'protocol': {
          'dataset': config.data.dataset, 'variant': config.data.variant, 'split': split,
          'trained_on': config.data.train, 'select': config.select, 'leaky': leaky, 'looks': looks,
          'n': result['count'], 'K': len(source.classes), 'seen_in_training': seen, 'fingerprint': source.fingerprint},
      'step': at, 'name': config.name, 'seeds': 1, 'seed': config.seed, 'commit': record['commit'],
      'hardware': cluster.hardware(), 'evaluated': run.now()}
  if jax.process_index() == 0:
    run.write_json(path, result)
    np.savez_compressed(path.with_suffix('.npz'), label=table['label'], prediction=table['prediction'],
                        logits=table['logits'])
    run.write_json(workdir / 'run.json', record | {'looks': record.get('looks', {}) | {split: looks}})
  return result


def draw_panel(evaluator: Callable[..., dict[str, Any]], before: Mapping[str, Any], after: Mapping[str, Any],
               source: Any, batch_size: int, workdir: Path, mesh: jax.sharding.Mesh) -> None:
  """Writes panel.npz: a few faces with their prior and their attribution maps before and after training."""
  labels = np.asarray(source.labels)
  firsts = [np.flatnonzero(labels == k)[:2] for k in range(len(source.classes))]
  rows = [f[i] for i in range(2) for f in firsts if len(f) > i][:min(PANEL_FACES, batch_size)]
  faces = stream.rows(source, rows)
  # Filled up to a whole evaluation batch, which is compiled already.
  padded = {name: np.resize(values, (batch_size, *values.shape[1:])) for name, values in faces.items()}
  panel = {'images': faces['image'], 'priors': faces['landmark_heatmap'], 'labels': faces['label'],
           'names': np.array([source.names[row] for row in rows])}
  if 'causal_mask' in faces:
    panel['causal_masks'] = faces['causal_mask']
  for when, variables in (('before', before), ('after', after)):
    outputs = {name: values[: len(rows)] for name, values in
               jax.device_get(evaluator(variables, cluster.place(padded, mesh))).items()}
    panel |= {f'{when}/{name[4:]}': values for name, values in outputs.items() if name.startswith('map/')}
    panel['predictions'] = outputs['logits'].argmax(axis=1)
  beside = workdir / 'panel.part.npz'
  np.savez_compressed(beside, **panel)
  beside.replace(workdir / 'panel.npz')
