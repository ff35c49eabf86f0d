"""From ten votes to a label: the rules of FERPlus and the counts they must give on the official label files.

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

# Images kept, by variant, split and class, measured on the official label.csv files; validation and test images are
# chosen by majority, whatever the rule of the training split.
_MAJORITY = {
    'train': (8733, 7284, 3136, 3022, 2098, 116, 536, 120),
    'valid': (1180, 862, 411, 348, 289, 25, 60, 16),
    'test': (1083, 892, 394, 382, 269, 16, 86, 15),
}
_CROSSENTROPY = _MAJORITY | {'train': (10107, 7501, 3517, 3445, 2401, 170, 643, 163)}
COUNTS = {
    'majority': _MAJORITY,
    'crossentropy': _CROSSENTROPY,
    'probability': _CROSSENTROPY,
    'argmax': {
        'train': (10295, 7526, 3557, 3530, 2463, 191, 655, 168),
        'valid': (1329, 899, 458, 415, 325, 32, 71, 26),
        'test': (1258, 928, 447, 446, 321, 20, 97, 28),
    },
    UNLABELLED: {'train': (3513,), 'valid': (388,), 'test': (436,)},
}


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
