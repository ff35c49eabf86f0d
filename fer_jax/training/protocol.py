"""What a network has seen and how it was chosen: the one verdict on what its numbers rest on.

A run writes down which images had a part in making its network (``Seen``): those it was trained on, whatever their
source, those its step was chosen by, and with them what its teacher and the run it started from have written down.
``verdict`` compares them with the images of an evaluation: row by row where both come from one prepared data set, and
by the digests of the images where they do not. The duplicates that a data set has in itself are no leak of a run:
``config.data.duplicates`` counts them.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from fer_jax.data.reading import order, rows
from fer_jax.data.reading.mixture import Part
from fer_jax.data.reading.splits import Split
from fer_jax.errors import UserError
from fer_jax.runtime import storage
from fer_jax.training.data import Data

IMAGES = 'seen.npz'  # Digests of images in a workdir; the rest is 'seen' of run.json.

NETWORK = 'the network'


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a run is trained, chosen and scored, as its config says it.

  Attributes:
    name: of the run.
    seed: of the run.
    data: the faces it is trained and tested on.
    select: which step is tested, see configs/common.py.
    variables: which variables of that step, likewise.
    batch_mean: whether an answer depends on the other faces of its batch (ARM with ``global_mean='batch'``).
    eval_batch_size: faces of an evaluation step over all devices.
    eval_order: in which they come, a name in ``order.EVALUATION``; it matters with ``batch_mean`` alone.
    keeps_faces: whether its report has faces that are not to be passed on.
  """

  name: str
  seed: int
  data: Data
  select: str
  variables: str
  batch_mean: bool
  eval_batch_size: int
  eval_order: str
  keeps_faces: bool = False

  def __post_init__(self):
    order.check('config.eval_order', self.eval_order, order.EVALUATION)

  @property
  def chosen_by(self) -> str:
    """The split whose accuracy chooses the step; '' where none does."""
    return {'holdout': self.data.holdout, 'best_on_test': self.data.test}.get(self.select, '')


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
  """Images that had a part in making a network."""

  how: str  # 'trained', 'unlabelled' (trained on without their labels), 'chosen' (the step), or 'unknown'.
  who: str = NETWORK  # Or an ancestor of it, in words.
  source: str = ''  # Of ``config.sources``; '' for the training split itself.
  split: str = ''  # The expression.
  intervals: tuple[rows.Interval, ...] = ()  # What it reads of the data set ``identity``.
  identity: str = ''
  classes: tuple[str, ...] = ()  # Only faces of these; () for all.
  images: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.uint64))  # Digests, sorted.

  @classmethod
  def of(cls, faces: Split, split: str, how: str = 'trained', **more: Any) -> 'Seen':
    """All images of a split that is open."""
    return cls(how, split=split, intervals=faces.intervals, identity=faces.whole.identity,
               classes=faces.classes if faces.restricted else (), images=np.unique(faces.images), **more)

  def inside(self, faces: Split) -> np.ndarray:
    """Which of N faces are among these images: bool (N,)."""
    if not (self.identity and self.identity == faces.whole.identity):
      return np.isin(faces.images, self.images)
    found = rows.inside(*faces.places, self.intervals)
    # Of some classes: the very images, which another variant of the data set may label otherwise.
    return found & np.isin(faces.images, self.images) if self.classes else found


def see(protocol: Protocol, parts: Sequence[Part], holdout: Split | None,
        ancestors: Mapping[str, Iterable[Seen]]) -> list[Seen]:
  """What the network of a run has seen at its end.

  Args:
    parts: what its batches hold, the training split first.
    holdout: the faces of ``protocol.chosen_by``; None where that is ''.
    ancestors: what a 'teacher' and a 'start' (``config.init_from``) have seen.
  """
  data, seen = protocol.data, []
  for part in parts:
    if part.parts:
      how = 'unlabelled' if part.supervision == 'none' else 'trained'
      split = data.sources[part.name]['split'] if part.name else data.train
      seen.append(Seen.of(part.source, split, how, source=part.name))
  if protocol.chosen_by and holdout is not None:
    seen.append(Seen.of(holdout, protocol.chosen_by, 'chosen'))
  for relation, theirs in ancestors.items():
    seen += [dataclasses.replace(one, who=_ancestor(relation, one.who)) for one in theirs]
  return seen


def _ancestor(relation: str, who: str) -> str:
  """An ancestor of an ancestor, in words: the teacher of the run that the network started from."""
  if who == NETWORK:
    return {'teacher': 'its teacher', 'start': 'the run it started from'}[relation]
  return f"{who} (of {'its teacher' if relation == 'teacher' else 'the run it started from'})"


def remember(workdir: epath.Path, record: dict[str, Any], seen: Sequence[Seen]) -> None:
  """Writes what a network has seen into its workdir and, without the digests, into ``record``."""
  storage.write_npz(workdir / IMAGES, **{str(i): one.images for i, one in enumerate(seen)})
  record['seen'] = [{field.name: getattr(one, field.name) for field in dataclasses.fields(Seen)
                     if field.name != 'images'} for one in seen]


def recall(workdir: epath.Path, record: Mapping[str, Any]) -> list[Seen] | None:
  """What the network of a run has seen; None where an earlier version has trained it and did not write it down.

  Raises:
    UserError: seen.npz is gone or damaged.
  """
  if 'seen' not in record:
    return None
  try:
    images = storage.read_npz(workdir / IMAGES)
    return [Seen(**one | {'intervals': tuple(rows.Interval(*interval) for interval in one['intervals']),
                          'classes': tuple(one['classes']), 'images': images[str(i)]})
            for i, one in enumerate(record['seen'])]
  except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
    raise UserError(f'{workdir / IMAGES}, with what the network has seen, is gone or damaged, so it cannot be told '
                    f'which numbers are leaky ({error}). Put it back, or train the run again.') from error


def verdict(protocol: Protocol, seen: Iterable[Seen], faces: Split, split: str) -> dict[str, Any]:
  """What a number measured on these faces rests on, and why it is not that of faces the network never met.

  Args:
    seen: by the network.
    faces: the split it is measured on, of any data set.
    split: its expression.

  Returns:
    'leaky'; 'reasons' for it, in words; 'seen_in_training', how many of the faces the network or an ancestor was
    trained on; and what the run and the split are.
  """
  data, groups, trained = protocol.data, {}, np.zeros(len(faces), bool)
  for one in seen:
    key, found = (one.how, one.who, one.source), one.inside(faces)
    groups[key] = groups.get(key, False) | found
    if one.how in ('trained', 'unlabelled'):
      trained |= found
  reasons = [_reason(*key, int(found.sum()), f'{len(faces):,} {split}') for key, found in groups.items()
             if found.any() or key[0] == 'unknown']
  if protocol.batch_mean:
    reasons.append('each answer depends on the other images of its batch, here '
                   f'{protocol.eval_batch_size} in {protocol.eval_order} order')
  return {'split': split, 'trained_on': data.train, 'select': protocol.select, 'variables': protocol.variables,
          'chosen_by': protocol.chosen_by, 'leaky': bool(reasons), 'reasons': reasons,
          'seen_in_training': int(trained.sum()), 'K': len(faces.classes), 'fingerprint': faces.fingerprint}


def _reason(how: str, who: str, source: str, count: int, of: str) -> str:
  by, where = f' by {who}' * (who != NETWORK), f" in the source '{source}'" * bool(source)
  return {
      'trained': f'{count:,} of {of} images were trained on{by}{where}',
      'unlabelled': f'{count:,} of {of} images were seen without their labels{by}{where}',
      'chosen': f'the step of {who} was chosen by the accuracy on {count:,} of {of} images',
      'unknown': f'what {who} was trained on is not known'}[how]


def describe(protocol: Protocol, record: Mapping[str, Any], seen: Iterable[Seen], faces: Split, split: str
             ) -> dict[str, Any]:
  """``verdict`` on a split of the run's own data set, with what tells it apart in tables."""
  data, then = protocol.data, record.get('digest')
  return {'dataset': data.dataset, 'variant': data.variant, **verdict(protocol, seen, faces, split),
          **({'start': record['start']} if 'start' in record else {}),
          **({'other_data': [then, faces.digest]} if then and faces.digest not in ('', then) else {}),
          **({'eval_order': protocol.eval_order, 'eval_batch_size': protocol.eval_batch_size}
             if protocol.batch_mean else {})}


def evaluated(record: Mapping[str, Any], faces: Split, split: str) -> tuple[dict[str, int], int]:
  """Counts one more evaluation of a split of the run's data set.

  Returns:
    How often each expression was evaluated, and how often the faces of this one were by now: the face that was
    evaluated most, under whatever expression, evaluations during training included.
  """
  before = record.get('evaluations', {})
  now = before | {split: before.get(split, 0) + 1}
  times = np.zeros(len(faces), int)
  for expression, count in (*now.items(), *record.get('holdout_evaluations', {}).items()):
    try:
      read = rows.inside(*faces.places, rows.intervals(expression, faces.whole.splits))
    except UserError:  # A folder, or a split that the data no longer have.
      read = np.full(len(faces), expression == split)
    times += count * read
  return now, int(times.max(initial=0))
