"""Preparing by Apache Beam: the same records as those of the pool, by any of its runners. Beam is an extra."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from fer_jax.data.preparing import packed, pool
from fer_jax.data.preparing.records import Listed, Reason
from fer_jax.errors import UserError

_TASK, _SKIP = 'task-', 'skip-'  # Files of a pipeline, gone when it is done.


def config(runner: str, options: Sequence[str]) -> tfds.download.DownloadConfig:
  """What has TFDS prepare by a runner of Beam.

  Args:
    runner: its name, such as 'DirectRunner'.

  Raises:
    UserError: Beam is not installed, or has no such runner.
  """
  try:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners import create_runner
  except ImportError as e:
    raise UserError(f'--beam_runner needs Apache Beam ({e}): pip install "fer_jax[beam]"') from e
  try:
    return tfds.download.DownloadConfig(beam_runner=create_runner(runner), beam_options=PipelineOptions(list(options)))
  except (AttributeError, ImportError, ValueError) as e:
    raise UserError(f"--beam_runner={runner}: Beam has no such runner ({e}); try DirectRunner.") from e


def examples(folder: epath.Path, split: str, listed: Sequence[Listed],
             maker: Callable[[Listed], dict[str, Any] | Reason]) -> Any:
  """The examples of a split as a transform of Beam.

  What is listed travels in files in ``folder``, not in the pipeline's graph, and of the kinds that the graph names; so
  do the reasons why there is no record of a face, see ``skipped``.
  """
  import apache_beam as beam
  maker(listed[0])  # What is missing shows here, not as an error of some worker.
  tasks = [folder / f'{_TASK}{split}-{first:09d}' for first in range(0, len(listed), pool.PART)]
  for i, task in enumerate(tasks):
    task.write_bytes(packed.pack(list(listed[i * pool.PART:(i + 1) * pool.PART])))
  kinds = [Listed, *{type(one.file) for one in listed}]

  def transform(begin: Any, reasons: str) -> Any:
    made = (begin | beam.Create([str(task) for task in tasks])
            | beam.FlatMap(lambda task: packed.unpack(epath.Path(task).read_bytes(), kinds)) | beam.Reshuffle()
            | beam.Map(lambda one: (one, maker(one))))
    _ = (made | 'Bad' >> beam.Filter(lambda pair: isinstance(pair[1], Reason))
         | beam.Map(lambda pair: json.dumps([str(pair[0].file), pair[1]]))
         | beam.io.WriteToText(reasons, num_shards=1, shard_name_template=''))
    return (made | 'Good' >> beam.Filter(lambda pair: not isinstance(pair[1], Reason))
            | 'Keyed' >> beam.Map(lambda pair: (pair[1]['name'], pair[1])))

  return beam.ptransform_fn(transform)(str(folder / f'{_SKIP}{split}'))


def skipped(folder: epath.Path) -> dict[str, Reason]:
  """Why there is no record of some faces, by what their files are called; removes the files of the pipelines."""
  reasons = {}
  for file in sorted(folder.glob(f'{_SKIP}*')):
    reasons |= dict(json.loads(line) for line in file.read_text().splitlines())
    file.unlink()
  for file in folder.glob(f'{_TASK}*'):
    file.unlink()
  return reasons
