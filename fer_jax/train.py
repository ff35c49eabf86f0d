"""Trains what a config describes: ``python -m fer_jax.train --config=configs/pal.py:ferplus --workdir=runs/pal``."""

from absl import flags
from ml_collections import config_flags

from fer_jax import cluster, commands

_CONFIG = config_flags.DEFINE_config_file('config', help_string='The config file, and behind a colon the data set.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run; an interrupted run in it goes on.', required=True)


def main(argv: list[str]) -> None:
  """Trains."""
  del argv
  cluster.start()
  from fer_jax import experiment  # After cluster.start(): importing it may touch a device.
  experiment.train(_CONFIG.value, _WORKDIR.value, commands.overrides())


if __name__ == '__main__':
  flags.mark_flag_as_required('config')
  commands.run(main)
