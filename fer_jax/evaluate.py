"""Evaluates a run.

    python -m fer_jax.evaluate --workdir=runs/pal [--split=test]
    python -m fer_jax.evaluate --workdir=runs/pal --subset=occlusion.txt --copies
    python -m fer_jax.evaluate --workdir=runs/arm --set=model.head.global_mean=batch --set=eval_order=sorted

Subsets alone are scored from the predictions of the last evaluation, where there are any: no further look at the split.
Changes by --set make an evaluation of their own, in a file of its own; they cannot change the parameters.
"""

from absl import flags

from fer_jax import command_line

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a training run.', required=True)
_SPLIT = flags.DEFINE_string('split', None, "Split of the run's data set; its test split by default.")
_DATA_DIR = flags.DEFINE_string('data_dir', None, "Where prepared data sets lie, if not where the run's config says.")
_SET = flags.DEFINE_multi_string('set', [], "A change to the run's config, such as --set=eval_order=sorted; may be "
                                 'repeated.')
_SUBSET = flags.DEFINE_multi_string('subset', [], "A list of faces to score apart, besides those of the run's config; "
                                    'may be repeated.')
_COPIES = flags.DEFINE_boolean('copies', False, 'Also score without the images that have an exact copy in the training '
                               'split.')
_start = command_line.start_flags()


def main(argv: list[str]) -> None:
  """Evaluates, prints the table, writes ``WORKDIR/evaluation/<split>[,<changes>].json`` and the report."""
  del argv
  _start()
  from fer_jax.reports.page import write_report
  from fer_jax.reports.table import print_evaluation
  from fer_jax.runtime import cluster, storage
  from fer_jax.training import evaluation
  workdir = storage.as_path(_WORKDIR.value)
  print_evaluation(evaluation.evaluate_run(
      workdir, _SPLIT.value, data_dir=_DATA_DIR.value, changes=_SET.value, subset_lists=_SUBSET.value,
      copies=_COPIES.value))
  cluster.say(f'Report: {write_report(workdir)}')


if __name__ == '__main__':
  command_line.run(main)
