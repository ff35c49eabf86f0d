"""What an evaluation costs the host: its CPU time beside the network."""

import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.table import Table

from fer_jax.analysis.speed import in_turns
from fer_jax.data.reading import streams
from fer_jax.runtime import cluster, storage
from fer_jax.training import evaluation, setup
from fer_jax.training.start import settle
from fer_jax.training.workdir import open_workdir


def evaluation_table(configs: Mapping[str, ConfigDict], rounds: int) -> Table:
  """CPU time of all threads that evaluating the test split of configs takes without their networks.

  The network's place is taken by one that answers at once, with noise of the forms of its outputs. All else is that of
  an evaluation: reading, what leaves the devices, drawing and comparing maps, and the files.

  Raises:
    UserError: a bad config or data set.
  """
  works = [_prepare(config) for config in configs.values()]
  seconds = in_turns([evaluate for _, evaluate in works], rounds, time.process_time)
  table = Table('config', 'test faces', 'CPU-seconds, median', 'lowest and highest', 'CPU-ms a face',
                title=f'An evaluation beside the network, {rounds} rounds in turns on {cluster.hardware()}')
  for name, (faces, _), taken in zip(configs, works, seconds.T, strict=True):
    table.add_row(name, f'{faces:,}', f'{np.median(taken):.2f}', f'{taken.min():.2f} to {taken.max():.2f}',
                  f'{1e3 * np.median(taken) / faces:.2f}')
  return table


def _prepare(config: ConfigDict) -> tuple[int, Callable[[], Any]]:
  """How many faces the test split has, and what evaluates it."""
  mesh = cluster.make_mesh()
  settle(config)
  protocol = setup.make_protocol(config)
  split = protocol.data.test
  faces = protocol.data.open(split)
  system = setup.make_system(config, faces.classes, 1)
  rows = np.resize(np.arange(len(faces)), protocol.eval_batch_size)
  outputs = setup.make_evaluator(system, mesh).eval_shape(
      jax.eval_shape(system.initial).variables(), streams.rows(faces, rows))
  rng = np.random.default_rng(0)
  noise = {name: rng.random(form.shape, np.float32) for name, form in outputs.items()}
  network = lambda variables, batch: {name: batch.get(name, drawn) for name, drawn in noise.items()}

  def evaluate(_: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
      workdir = storage.as_path(folder) / 'run'
      record = open_workdir(setup.settings(config), workdir, [])
      trained = setup.Trained(workdir, protocol, record, system, {}, 1, list)
      evaluation.evaluate_split(trained, network, faces, split, mesh)

  return len(faces), evaluate
