"""Reads what runs have left in their workdirs."""

import json

import jax

from fer_jax.runtime import cluster
from fer_jax.training import checkpoint, setup
from fer_jax.training.workdir import read_config, read_run


def final_state(workdir):
  """The step of the newest checkpoint, and its state on the host."""
  config, record = read_config(workdir), read_run(workdir)
  like = jax.eval_shape(setup.make_system(config, record['classes'], record['steps']).initial)
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints')
  step, state = checkpoints.restore_latest(like, cluster.make_mesh(jax.devices()[:1]))
  checkpoints.close()
  return step, jax.device_get(state)


def metrics(workdir):
  """The lines of metrics.jsonl."""
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
