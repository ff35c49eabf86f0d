"""PyTorch's step is ours: the same loss and gradient from the same parameters. And what the table says of both."""

import sys
import types

import jax
import numpy as np
import pytest

from fer_jax import analysis
from fer_jax.analysis import peer
from fer_jax.errors import UserError
from fer_jax.models.classifier import computing_dtype


@pytest.mark.parametrize('system, size', [('baseline', 112), ('pal', 48), ('ran', 112)])
def test_pytorch_takes_the_same_steps(system, size):
  pytest.importorskip('torch', reason='PyTorch is not installed')
  config, faces = peer.make_config(system, size, 4, width=8, depth=10), peer.draw_batch(4, size)
  ours = peer.Ours(config, faces)
  theirs = peer.make_peer(config, ours.params, faces, device='cpu')
  first, wanted = ours.take(1), theirs.take(1)
  assert {name: first[name] for name in wanted} == pytest.approx(wanted, rel=1e-4)
  # After an update: the optimiser is the same, too.
  second = ours.take(1)['loss'] - first['loss']
  assert second == pytest.approx(theirs.take(1)['loss'], rel=1e-4) and abs(second / first['loss'] - 1) > 0.01


def test_faces_are_drawn_with_what_a_step_reads():
  faces = peer.draw_batch(9, 32)
  assert list(faces['label']) == [0, 1, 2, 3, 4, 5, 6, 0, 1] and (faces['target'].argmax(1) == faces['label']).all()
  assert {len(values) for values in faces.values()} == {9} and faces['image'].shape == (9, 32, 32, 3)
  for heat, points in zip(faces['landmark_heatmap'], faces['landmarks'], strict=True):
    x, y = np.clip(points[17:] * len(heat), 0, len(heat) - 1).astype(int).T
    assert heat[y, x].mean() > 2 * heat.mean()


@pytest.fixture
def timed(monkeypatch):
  """No PyTorch and no steps, but seconds of three rounds: ours, PyTorch's, and its with channels last."""
  made, peers = [], types.SimpleNamespace(VERSION='2.0')
  monkeypatch.setattr(peer, 'find_torch', lambda: peers)
  take = lambda loss: types.SimpleNamespace(params={}, take=lambda steps: {'loss': loss})
  monkeypatch.setattr(peer, 'Ours', lambda config, faces: made.append(config) or take(1.25))
  monkeypatch.setattr(peer, 'make_peer', lambda *_, **options: made.append(options) or take(1.5))
  monkeypatch.setattr(peer, 'in_turns', lambda work, rounds: np.array(
      [[2, 1, 4], [3, 1, 3], [8, 4, 8]], float)[:, :len(work)])
  return made


def test_ratios_are_of_the_rounds(timed):
  table = peer.peer_table([48, 112], [], rounds=3, steps=2)
  cells = [list(column.cells) for column in table.columns]
  assert cells[:3] == [['baseline', 'pal', 'ran'] * 2, ['48'] * 3 + ['112'] * 3, ['32'] * 3 + ['16'] * 3]
  # Seconds of one step, of two; ours over PyTorch's 2, 3, 2, and over the other form's 0.5, 1, 1.
  assert [column[0] for column in cells[3:]] == [
      '1.5', '0.5', '2.00', '2.00 to 3.00', '2', '1.00', '0.50 to 1.00', '1.2500 1.5000']
  assert [(one.name, one.image_size, one.batch_size, one.model.backbone.stem) for one in timed[3::3]] == [
      ('pal', 48, 32, 'small'), ('ran', 48, 32, 'small'), ('baseline', 112, 16, 'standard'),
      ('pal', 112, 16, 'standard'), ('ran', 112, 16, 'standard')]
  assert timed[1:3] == [{'device': 'cpu'}, {'channels_last': True, 'device': 'cpu'}]
  assert 'PyTorch 2.0: 3 rounds of 2 in turns' in table.title and '4.00 times' in table.caption


def test_on_a_gpu_pytorch_is_compiled(timed, monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  table = peer.peer_table([48], [4], rounds=3, steps=1, systems=['pal'])
  assert computing_dtype(timed[0].model.dtype) == 'bfloat16' and timed[0].batch_size == 4
  assert timed[1:] == [{'channels_last': True, 'fast': True, 'device': 'cuda'}] and len(table.columns) == 8


@pytest.mark.parametrize('sizes, batches', [([48, 96], []), ([48], [4, 8])])
def test_every_size_has_a_batch(timed, sizes, batches):
  with pytest.raises(UserError, match='--batches: give a number of faces for each of --sizes=48'):
    peer.peer_table(sizes, batches, rounds=2, steps=1)


@pytest.mark.parametrize('backend, module, message', [
    ('cpu', None, r"PyTorch is not installed; pip install '\.\[torch\]'"),
    ('tpu', types.ModuleType('torch'), 'PyTorch does not run on tpu; JAX_PLATFORMS=cpu measures on the CPU'),
    ('gpu', types.ModuleType('torch'), 'JAX uses a GPU and this PyTorch cannot; JAX_PLATFORMS=cpu')])
def test_no_pytorch(backend, module, message, monkeypatch):
  if module:
    module.__spec__ = types.SimpleNamespace()
  monkeypatch.setitem(sys.modules, 'torch', module)
  monkeypatch.setattr(analysis, 'peer_torch', types.SimpleNamespace(has_gpu=lambda: False), raising=False)
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  with pytest.raises(UserError, match=message):
    peer.find_torch()
