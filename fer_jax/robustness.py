"""Measures how runs hold up against drawn corruptions: occlusion, blur, noise, rotation, brightness, gamma.

    python -m fer_jax.robustness --workdir=runs/pal
    python -m fer_jax.robustness --workdir=runs/pal-0,runs/pal-1,runs/plain-0,runs/plain-1 --kinds=occlusion,blur

Each kind has half a dozen severities (fer_jax/data/corrupt.py). Of several runs, those that differ in their seed alone
are one row of the table. Drawn corruptions are not real ones: RAN's lists name faces that are truly occluded or turned,
see fer_jax.evaluate --subset.
"""

from absl import flags

from fer_jax import command_line
from fer_jax.runtime import cluster

_WORKDIR = flags.DEFINE_list('workdir', None, 'Folders of finished runs, with commas between.', required=True)
_SPLIT = flags.DEFINE_string('split', None, "Split of the run's data set; its test split by default.")
_KINDS = flags.DEFINE_list('kinds', [], 'Which corruptions: occlusion, blur, noise, rotation, brightness, gamma; all '
                           'by default.')
_SEED = flags.DEFINE_integer('seed', 0, 'Decides what is drawn on which face.', lower_bound=0,
                             upper_bound=2**31 - 1)
_DATA_DIR = flags.DEFINE_string('data_dir', None, "Where prepared data sets lie, if not where the run's config says.")
_start = command_line.start_flags()


def main(argv: list[str]) -> None:
  """Prints the table, writes ``WORKDIR/robustness/<split>.json`` and the report of each run."""
  del argv
  _start()
  from fer_jax.analysis import robustness
  from fer_jax.analysis.corruptions import check_kinds
  from fer_jax.reports.benchmark import Run, by_config
  from fer_jax.reports.page import write_report
  from fer_jax.reports.robustness import print_robustness
  from fer_jax.runtime import storage
  from fer_jax.training.workdir import read_run
  workdirs = [storage.as_path(workdir) for workdir in dict.fromkeys(_WORKDIR.value)]
  check_kinds(tuple(_KINDS.value))  # What is amiss shows before anything is measured.
  runs, configs = [], {workdir: robustness.read(workdir)[0] for workdir in workdirs}
  for workdir, config in configs.items():
    result = robustness.measure(workdir, _SPLIT.value, _KINDS.value, data_dir=_DATA_DIR.value, seed=_SEED.value)
    runs.append(Run(str(workdir), config.to_dict(), read_run(workdir), result))
  print_robustness({name: [one.result for one in row] for name, row in by_config(runs).items()}, _KINDS.value)
  for workdir in workdirs:
    cluster.say(f'Report: {write_report(workdir)}')


if __name__ == '__main__':
  command_line.run(main)
