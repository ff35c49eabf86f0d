"""Scores of a network on another data set, over the classes that the two share: joined by name, never by index."""

from collections.abc import Sequence

import numpy as np

from fer_jax.data.face import canonical
from fer_jax.errors import UserError


def shared_classes(ours: Sequence[str], theirs: Sequence[str]) -> tuple[str, ...]:
  """The classes that both lists have, under their canonical names where they have one, in the order of ``ours``.

  Raises a UserError where a list names a class twice, or fewer than two are shared.
  """
  names, others = _named(ours), _named(theirs)
  shared = tuple(name for name in names if name in others)
  if len(shared) < 2:
    raise UserError(f"the classes {', '.join(ours)} and {', '.join(theirs)} share {', '.join(shared) or 'none'}; a "
                    'test needs two at least.')
  return shared


def restrict(label: np.ndarray, logits: np.ndarray, network_classes: Sequence[str], classes: Sequence[str],
             shared: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  """Labels and predictions among the S shared classes, see ``shared_classes``.

  Faces of other classes are left out, and the network answers with the largest of the logits of the shared ones: an
  answer outside is impossible, as if it had never learned the others. Labels (N,) int are indices into ``classes``, -1
  unknown; the K columns of the logits (N, K) mean ``network_classes``.

  Returns labels (N,) int in [0, S), -1 for faces that are left out, and predictions (N,) int in [0, S).
  """
  names, columns = _named(classes), [_named(network_classes).index(name) for name in shared]
  place = np.array([shared.index(name) if name in shared else -1 for name in names] + [-1])  # -1 finds the last.
  return place[np.asarray(label)], np.asarray(logits)[:, columns].argmax(axis=1)


def _named(classes: Sequence[str]) -> list[str]:
  names = [canonical(name) or name.strip().lower() for name in classes]
  if twice := [name for name in names if names.count(name) > 1]:
    raise UserError(f"the classes {', '.join(classes)} name '{twice[0]}' twice; rename one of its folders.")
  return names
