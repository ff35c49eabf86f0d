"""Trains what a config describes, and evaluates it.

    python -m fer_jax.train --config=configs/pal.py:ferplus --workdir=runs/pal
    python -m fer_jax.train --config=pal:synthetic_faces --workdir=runs/drawn --config.seed=1

A config is the path of a file, or the name of one that comes with this package; behind a colon stands the data set.
--config.KEY=VALUE changes a value of it. The same command again goes on with a run that was interrupted, and makes what
a finished one lacks. SIGTERM and Ctrl-C save first (status 75 and 130); a second Ctrl-C ends it at once.
"""

from typing import Any

from absl import flags

from fer_jax import command_line
from fer_jax.errors import UserError


def define() -> None:
  """Defines the flags."""
  command_line.define_config('The config file, and behind a colon the data set.')
  flags.DEFINE_string('workdir', None, 'Folder of the run, gs:// too; an interrupted run in it goes on.', required=True)
  flags.DEFINE_string('profile', None, 'START:STOP, steps whose JAX trace is written to WORKDIR/profile.')
  command_line.define_start()


def main(given: Any) -> None:
  """Trains."""
  profile = _steps(given.profile)
  command_line.start(given, f"{given.workdir.rstrip('/')}/compile_cache")
  from fer_jax.training import loop
  loop.train(given.config, given.workdir, command_line.overrides(given), profile)


def _steps(text: str | None) -> range:
  """The steps 'START:STOP' names; none of None."""
  start, _, stop = (text or '0:0').partition(':')
  if not (start.isdecimal() and stop.isdecimal() and (int(start) < int(stop) or text is None)):
    raise UserError(f'--profile={text}: give START:STOP, such as 100:105 for five steps after the first 100.')
  return range(int(start), int(stop))


if __name__ == '__main__':
  command_line.run(define, main)
