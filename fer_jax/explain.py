"""Tests whether a finished run's attribution maps are faithful: deletion and insertion, and random parameters.

    python -m fer_jax.explain --workdir=runs/pal
    python -m fer_jax.explain --workdir=runs/pal --split=valid --faces=200 --steps=8

Deletion and insertion (RISE) ask whether the pixels that a map ranks first are those the answer hangs on, beside a
random order of pixels, a centred Gaussian and the face's own landmarks. Random parameters (Adebayo et al.) ask whether
the map changes when the network forgets what it has learnt. Neither needs a label, and no accuracy is measured.
"""

from typing import Any

from absl import flags

from fer_jax import command_line


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string('workdir', None, 'Folder of a finished training run.', required=True)
  command_line.define_split()
  flags.DEFINE_integer('faces', 500, 'How many faces, evenly spaced over the split.')
  flags.DEFINE_integer('steps', 16, "Portions in which a face's pixels go and come.")
  command_line.define_start()


def main(given: Any) -> None:
  """Prints the tables, writes ``WORKDIR/explanations/<split>.json`` and the report."""
  command_line.start(given)
  from fer_jax.analysis import faithfulness
  from fer_jax.reports.faithfulness import print_faithfulness
  from fer_jax.reports.page import write_report
  from fer_jax.runtime import cluster, storage
  workdir = storage.as_path(given.workdir)
  print_faithfulness(faithfulness.explain_run(workdir, given.split, faces=given.faces, steps=given.steps,
                                              data_dir=given.data_dir))
  cluster.say(f'Report: {write_report(workdir)}')


if __name__ == '__main__':
  command_line.run(define, main)
