"""Some classes of a split: what a network is trained on while others are held out, or the ones held out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.errors import UserError, nearest


class Restricted:
  """The records of some classes only, with labels, votes and targets of these classes alone."""

  def __init__(self, records: Sequence[Mapping[str, Any]], classes: Sequence[str], wanted: Sequence[str]):
    """Reads every record's label.

    Args:
      wanted: the classes to keep, in the order of the new labels.

    Raises:
      UserError: ``wanted`` names a class twice or one that is not there, or no record is left.
    """
    for name in wanted:
      if name not in classes or wanted.count(name) > 1:
        what = f'is named {wanted.count(name)} times' if name in classes else f'is unknown{nearest(name, classes)}'
        raise UserError(f"classes {', '.join(wanted)}: '{name}' {what}")
    self._records, self._columns = records, [classes.index(name) for name in wanted]
    # Which of ``records`` are left, int (N,), in their order.
    self.rows = np.flatnonzero(np.isin([int(record['label']) for record in records], self._columns))
    if not len(self.rows):
      raise UserError(f"the split has no face of the classes {', '.join(wanted)}.")

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, row: int) -> dict[str, Any]:
    record = dict(self._records[int(self.rows[row])])
    record['label'] = self._columns.index(int(record['label']))
    for field in ('votes', 'target'):
      if field in record:
        record[field] = np.asarray(record[field])[self._columns]
    if 'target' in record:
      record['target'] = record['target'] / max(record['target'].sum(), np.finfo(np.float32).tiny)
    return record
