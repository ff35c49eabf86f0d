"""What a network has seen and how it was chosen: what its numbers rest on."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_jax.data.reading import order
from fer_jax.data.reading.splits import Split
from fer_jax.training.data import Data


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a run is trained, chosen and scored, as its config says it.

  Attributes:
    name: of the run.
    seed: of the run.
    data: the faces it is trained and tested on.
    select: which variables are tested, see configs/common.py.
    batch_mean: whether an answer depends on the other faces of its batch (ARM with ``global_mean='batch'``).
    eval_batch_size: faces of an evaluation step over all devices.
    eval_order: in which they come, a name in ``order.EVALUATION``; it matters with ``batch_mean`` alone.
  """

  name: str
  seed: int
  data: Data
  select: str
  batch_mean: bool
  eval_batch_size: int
  eval_order: str

  def __post_init__(self):
    order.check('config.eval_order', self.eval_order, order.EVALUATION)


def describe(protocol: Protocol, record: Mapping[str, Any], faces: Split, split: str) -> dict[str, Any]:
  """What a number measured on a split of the run's data set rests on, and whether it is leaky."""
  data = protocol.data
  seen = split in data.train.split('+')
  # With a batch mean, logits depend on which images share a batch, and files are sorted by class more often than not.
  leaky = seen or protocol.batch_mean or (protocol.select == 'best_on_test' and split == data.test)
  then = record.get('digest')
  return {
      'dataset': data.dataset, 'variant': data.variant, 'split': split, 'trained_on': data.train,
      'select': protocol.select, 'leaky': leaky, 'K': len(faces.classes), 'seen_in_training': seen,
      'fingerprint': faces.fingerprint,
      **({'other_data': [then, faces.digest]} if then and faces.digest not in ('', then) else {}),
      **({'eval_order': protocol.eval_order, 'eval_batch_size': protocol.eval_batch_size}
         if protocol.batch_mean else {})}


def leaks(protocol: Protocol, record: Mapping[str, Any], dataset: str, split: str, folder: str) -> list[str]:
  """Why answers on a split of any data set are not those for faces that the network has never seen, in words.

  Splits are compared by name, so a slice counts as the whole split. What a run in ``config.init_from`` has seen is not
  known.

  Args:
    dataset: a builder's name, or 'folder'.
    split: as in ``splits.open_split``.
    folder: where it lies; only that of a 'folder' matters.
  """
  data, teacher = protocol.data, record.get('teacher', {})

  def meets(name: str, other: str, place: str) -> bool:
    same = name == dataset and (name != 'folder' or Path(place).resolve() == Path(folder).resolve())
    return same and overlap(other, split)

  reasons = []
  if meets(data.dataset, data.train, data.dir):
    reasons.append('the network was trained on these images')
  if protocol.select in ('holdout', 'best_on_test') and meets(
      data.dataset, data.holdout if protocol.select == 'holdout' else data.test, data.dir):
    reasons.append('the parameters were chosen by the accuracy on these images')
  if teacher and meets(teacher.get('dataset', ''), teacher.get('trained_on', ''), ''):
    reasons.append("the network's teacher was trained on these images")
  for name, options in data.sources.items():
    if options.get('parts', 1) and meets(options.get('dataset') or data.dataset, options['split'],
                                         options.get('dir') or data.dir):
      reasons.append(f"the network has seen these images in its source '{name}'")
  if protocol.batch_mean:
    reasons.append('each answer depends on the other images of its batch')
  return reasons


def overlap(ours: str, theirs: str) -> bool:
  """Whether two split expressions name a common split."""
  names = lambda split: {part.partition('[')[0] for part in split.split('+')}
  return bool(names(ours) & names(theirs))


def evaluated(record: Mapping[str, Any], split: str) -> dict[str, int]:
  """How often each split was evaluated in a workdir, counting one more evaluation of ``split``."""
  before = record.get('evaluations', {})
  return before | {split: before.get(split, 0) + 1}
