"""Evaluates a run on a split of its data set, or scores subsets of it.

    python -m fer_jax.evaluate --workdir=runs/pal [--split=test]
    python -m fer_jax.evaluate --workdir=runs/pal --subset=occlusion.txt --duplicates
    python -m fer_jax.evaluate --workdir=runs/arm --set=model.head.global_mean=batch --set=eval_order=sorted

Subsets alone are scored from the predictions of the last evaluation, where there are any: the split is not evaluated
again.
Changes by --set make an evaluation of their own, in a file of its own; they cannot change the parameters.
"""

from typing import Any

from absl import flags

from fer_jax import command_line


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string('workdir', None, 'Folder of a training run.', required=True)
  command_line.define_split()
  flags.DEFINE_multi_string('set', [], "A change to the run's config, such as --set=eval_order=sorted; may be "
                            'repeated.')
  flags.DEFINE_multi_string('subset', [], "A list of faces to score apart, besides those of the run's config; may be "
                            'repeated.')
  flags.DEFINE_boolean('duplicates', False, 'Also score without images that have a duplicate in the training split.')
  flags.DEFINE_boolean('verbose', False, 'Print all tables: every class, map, subset and list of triplets.')
  command_line.define_start()


def main(given: Any) -> None:
  """Evaluates, prints the table, writes ``WORKDIR/evaluation/<split>[,<changes>].json`` and the report."""
  command_line.start(given)
  from fer_jax.reports.page import write_report
  from fer_jax.reports.table import print_evaluation
  from fer_jax.runtime import storage
  from fer_jax.training import evaluation
  workdir = storage.as_path(given.workdir)
  result = evaluation.evaluate_run(workdir, given.split, data_dir=given.data_dir, changes=given.set,
                                   subset_lists=given.subset, duplicates=given.duplicates)
  print_evaluation(result, write_report(workdir), given.verbose)


if __name__ == '__main__':
  command_line.run(define, main)
