"""Writes a run's network as files for other programs: ONNX, StableHLO, a page for the browser, a model card.

    python -m fer_jax.export --workdir=runs/pal --format=onnx,stablehlo --out=exported
    python -m fer_jax.export --workdir=runs/pal --format=web --out=exported

A file takes faces as the run's data set stores them, uint8 (N, size, size, channels) for any N, and gives probabilities
(calibrated), logits, embedding and one attribution map. Pre-processing is inside; about.json says the order of the
classes, size, channels and alignment. Every file is compared with the network before it is left.
"""

from typing import Any

from absl import flags

from fer_jax import command_line


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string('workdir', None, 'Folder of a finished training run.', required=True)
  flags.DEFINE_string('out', None, 'The folder to write.', required=True)
  flags.DEFINE_list('format', [], 'onnx, stablehlo, web, or several. ONNX and the page need the extra export.')
  flags.DEFINE_string('map', '', "Which of the maps of the run's config.explain goes with it, or 'none'; by default "
                      "'predicted', or its first.")
  flags.DEFINE_string('data_dir', None, "Where prepared data sets lie, if not where the run's config says.")
  command_line.define_start()


def main(given: Any) -> None:
  """Writes and checks the files."""
  command_line.start(given)
  from fer_jax.analysis import export
  from fer_jax.runtime import cluster
  about = export.export_run(given.workdir, given.out, given.format, map=given.map, data_dir=given.data_dir)
  cluster.say(export.printed(about, given.out))


if __name__ == '__main__':
  command_line.run(define, main)
