"""Measures how runs hold up against drawn corruptions: occlusion, blur, noise, rotation, brightness, gamma.

    python -m fer_jax.robustness --workdir=runs/pal
    python -m fer_jax.robustness --workdir=runs/pal-0,runs/pal-1,runs/plain-0,runs/plain-1 --kinds=occlusion,blur

Each kind has half a dozen severities (analysis/corruptions.py). Of several runs, those that differ in their seed alone
are one row of the table. Drawn corruptions are not real ones: RAN's lists name faces that are truly occluded or turned,
see fer_jax.evaluate --subset.
"""

from typing import Any

from absl import flags

from fer_jax import command_line


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_list('workdir', None, 'Folders of finished runs, with commas between.', required=True)
  command_line.define_split()
  flags.DEFINE_list('kinds', [], 'Which: occlusion, blur, noise, rotation, brightness, gamma; all by default.')
  flags.DEFINE_integer('seed', 0, 'Decides what is drawn on which face.', lower_bound=0, upper_bound=2**31 - 1)
  command_line.define_start()


def main(given: Any) -> None:
  """Prints the table, writes ``WORKDIR/robustness/<split>.json`` and the report of each run."""
  command_line.start(given)
  from fer_jax.analysis import robustness
  from fer_jax.analysis.corruptions import check_kinds
  from fer_jax.reports.page import write_report
  from fer_jax.reports.robustness import print_robustness
  from fer_jax.reports.runs import Run, by_config
  from fer_jax.runtime import cluster, storage
  from fer_jax.training.workdir import read_config, read_finished, read_run
  workdirs = [storage.as_path(workdir) for workdir in dict.fromkeys(given.workdir)]
  check_kinds(tuple(given.kinds))  # What is amiss shows before anything is measured.
  for workdir in workdirs:
    read_finished(workdir)
  runs = []
  for workdir in workdirs:
    result = robustness.measure(workdir, given.split, given.kinds, data_dir=given.data_dir, seed=given.seed)
    runs.append(Run(str(workdir), read_config(workdir).to_dict(), read_run(workdir), result))
  print_robustness({name: [one.result for one in row] for name, row in by_config(runs).items()}, given.kinds)
  for workdir in workdirs:
    cluster.say(f'Report: {write_report(workdir)}')


if __name__ == '__main__':
  command_line.run(define, main)
