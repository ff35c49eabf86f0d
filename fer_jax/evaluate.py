"""Evaluates a run: ``python -m fer_jax.evaluate --workdir=runs/pal [--split=test]``."""

from pathlib import Path

from absl import flags

from fer_jax import cluster, commands
from fer_jax.errors import UserError

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a training run.', required=True)
_SPLIT = flags.DEFINE_string('split', None, "Split of the run's data set; its test split by default.")
_DATA_DIR = flags.DEFINE_string('data_dir', None, "Where prepared data sets lie, if not where the run's config says.")


def main(argv: list[str]) -> None:
  """Evaluates, prints the table, writes ``WORKDIR/evaluation/<split>.json`` and the report."""
  del argv
  cluster.start()
  from fer_jax import evaluation, run
  from fer_jax.reports.page import write_report
  from fer_jax.reports.table import print_evaluation
  workdir = Path(_WORKDIR.value)
  config = run.read_config(workdir)
  record = run.read_run(workdir)
  if _DATA_DIR.value:
    config.data.dir = _DATA_DIR.value
  split = _SPLIT.value or config.data.test
  source = run.open_source(config, split)
  if list(source.classes) != record['classes']:
    raise UserError(f"the run in {workdir} speaks of the classes {', '.join(record['classes'])}, the data set now of "
                    f"{', '.join(source.classes)}; prepare the data set again with the run's version.")
  mesh = cluster.make_mesh()
  setup = run.make_setup(config, source.classes, record['steps'])
  variables, at = run.selected_variables(config, setup, workdir, mesh)
  evaluator = evaluation.make_evaluator(setup, mesh)
  print_evaluation(evaluation.evaluate_split(config, evaluator, variables, at, source, split, workdir, mesh))
  print(f'Report: {write_report(workdir)}')


if __name__ == '__main__':
  commands.run(main)
