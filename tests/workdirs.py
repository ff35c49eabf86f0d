"""Reads what runs have left in their workdirs."""

import json

import jax

from fer_jax import checkpoint, cluster, run


def final_state(workdir):
  """The step of the newest checkpoint, and its state on the host."""
  config, record = run.read_config(workdir), run.read_run(workdir)
  like = jax.eval_shape(run.make_setup(config, record['classes'], record['steps']).initial)
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints')
  step, state = checkpoints.restore_latest(like, cluster.make_mesh(jax.devices()[:1]))
  checkpoints.close()
  return step, jax.device_get(state)


def metrics(workdir):
  """The lines of metrics.jsonl."""
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
