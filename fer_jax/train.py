"""Trains what a config describes: ``python -m fer_jax.train --config=configs/pal.py:ferplus --workdir=runs/pal``."""

from absl import flags
from ml_collections import config_flags

from fer_jax import command_line
from fer_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file('config', help_string='The config file, and behind a colon the data set.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run, gs:// too; an interrupted run in it goes on.',
                               required=True)
_PROFILE = flags.DEFINE_string('profile', None, 'START:STOP, steps whose JAX trace is written to WORKDIR/profile.')
_start = command_line.start_flags()


def main(argv: list[str]) -> None:
  """Trains."""
  del argv
  profile = _steps(_PROFILE.value)
  _start(f"{_WORKDIR.value.rstrip('/')}/compile_cache")
  from fer_jax.training import loop
  loop.train(_CONFIG.value, _WORKDIR.value, command_line.overrides(), profile)


def _steps(text: str | None) -> range:
  """The steps 'START:STOP' names; none of None."""
  start, _, stop = (text or '0:0').partition(':')
  if not (start.isdecimal() and stop.isdecimal() and (int(start) < int(stop) or text is None)):
    raise UserError(f'--profile={text}: give START:STOP, such as 100:105 for five steps after the first 100.')
  return range(int(start), int(stop))


if __name__ == '__main__':
  flags.mark_flag_as_required('config')
  command_line.run(main)
