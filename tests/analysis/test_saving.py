"""The bench of saves: checkpoints are written, and what is put off takes no time."""

from fer_jax.analysis import saving
from fer_jax.training import checkpoint
from tests import faces


def test_a_round_saves_puts_off_and_waits(monkeypatch):
  written, real = [], checkpoint.ocp.CheckpointManager.save
  monkeypatch.setattr(checkpoint.ocp.CheckpointManager, 'save',
                      lambda self, step, **options: written.append(step) or real(self, step, **options))
  table = saving.saves_table(faces.config(), rounds=3)
  assert written == list(range(8))  # With the round before, and two of the three steps of each.
  medians, slowest = ([float(cell) for cell in column.cells] for column in table.columns[1:])
  assert medians[1] < medians[0] < medians[2] <= slowest[2] and len(medians) == 3
