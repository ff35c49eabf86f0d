"""Fits the temperature at which a run's probabilities mean what they say, and a threshold for abstaining.

    python -m fer_jax.calibrate --workdir=runs/pal
    python -m fer_jax.calibrate --workdir=runs/pal --accuracy=0.9
    python -m fer_jax.calibrate --workdir=runs/pal --split='test[:20%]' --coverage=0.8

The faces are those of the run's holdout, or of a split that the network was not trained on. No answer changes, and no
accuracy: the logits are divided by one number, so that 80 % sure means right in 80 % of such cases. With a wanted
accuracy of the answers, or a wanted share of faces that get one, it finds the probability below which to say "I do not
know". ``predict``, ``export`` and every evaluation of the run use what is found.
"""

from typing import Any

from absl import flags

from fer_jax import command_line


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string('workdir', None, 'Folder of a finished training run.', required=True)
  flags.DEFINE_string('split', None, "Split of the run's data set that it was not trained on; its holdout "
                      '(config.data.holdout) by default.')
  flags.DEFINE_float('accuracy', None, 'Find the lowest threshold from which on answers are right at this rate: its '
                     '95 % interval begins no lower.')
  flags.DEFINE_float('coverage', None, 'Or the highest threshold from which on this share of faces gets an answer.')
  flags.DEFINE_string('data_dir', None, "Where prepared data sets lie, if not where the run's config says.")
  command_line.define_start()


def main(given: Any) -> None:
  """Prints the numbers before and after, writes ``WORKDIR/calibration.json``, the evaluations and the report."""
  command_line.start(given)
  from fer_jax.analysis import calibration
  from fer_jax.reports.calibration import print_calibration
  from fer_jax.reports.page import write_report
  from fer_jax.runtime import cluster, storage
  workdir = storage.as_path(given.workdir)
  print_calibration(*calibration.calibrate(workdir, given.split, accuracy=given.accuracy, coverage=given.coverage,
                                           data_dir=given.data_dir))
  cluster.say(f'Report: {write_report(workdir)}')


if __name__ == '__main__':
  command_line.run(define, main)
