"""From ten votes to a label: the rules of FERPlus.

The three official rules are those of microsoft/FERPlus (`src/ferplus.py`, `src/train.py`; Barsoum et al., ICMI 2016).
'argmax' is not official, but much used since.
"""

from collections.abc import Sequence

import numpy as np

# Order of the first eight votes; the last two are 'unknown' and 'not a face'.
CLASSES = ('neutral', 'happiness', 'surprise', 'sadness', 'anger', 'disgust', 'fear', 'contempt')
VOTES = (*CLASSES, 'unknown', 'NF')

RULES = ('majority', 'crossentropy', 'probability', 'argmax')
UNLABELLED = 'unlabelled'  # No rule: the images that 'majority' drops, without a label.


def rule_of_split(rule: str, split: str) -> str:
  """The rule that decides in ``split``: official evaluation is always by majority, whatever the training rule."""
  return rule if split == 'train' or rule == 'argmax' else 'majority'


def target(votes: Sequence[int], rule: str) -> np.ndarray | None:
  """Applies a label rule to the votes for one image.

  'probability' has the targets of 'crossentropy'; it differs in training, where one class is drawn from the target
  each time an image is used.

  Args:
    votes: ten counts in the order of ``VOTES``.

  Returns:
    float32 (8,), the distribution over ``CLASSES``, of which the first arg-max is the label; None: the rule drops the
    image.
  """
  votes = np.array(votes, np.int64)
  if rule == 'argmax':
    chosen = _first_maximum(votes)
  else:
    votes[votes <= 1] = 0  # A single vote counts as a mistake.
    chosen = _majority(votes) if rule == 'majority' else _crossentropy(votes)
  if chosen is None or np.argmax(chosen) >= len(CLASSES):
    return None
  chosen = chosen[:len(CLASSES)]
  return (chosen / chosen.sum()).astype(np.float32)


def _first_maximum(votes: np.ndarray) -> np.ndarray:
  return np.where(np.arange(len(votes)) == np.argmax(votes), votes, 0)


def _majority(votes: np.ndarray) -> np.ndarray | None:
  return _first_maximum(votes) if votes.max() > 0.5 * votes.sum() else None


def _crossentropy(votes: np.ndarray) -> np.ndarray | None:
  """Takes classes by falling votes, tied ones together, up to three or three quarters of the votes."""
  total = votes.sum()
  out = np.zeros_like(votes)
  left = votes.copy()
  taken = count = 0
  go = True
  while taken < 0.75 * total and count < 3 and go:
    most = left.max()
    for i in np.flatnonzero(left == most):
      out[i], left[i] = most, 0
      taken += most
      count += 1
      if i >= len(CLASSES):  # 'Unknown' or 'not a face' ends the search, and counts only if it came first.
        go = False
        if out.sum() > most:
          out[i] = 0
          count -= 1
        break
  return out if out.sum() > 0.5 * total and count <= 3 else None
