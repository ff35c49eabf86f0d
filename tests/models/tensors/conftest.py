"""What the tests of readers share: a file of given content, read or refused."""

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.models import tensors


@pytest.fixture
def read(tmp_path):
  """Reads a file of some content."""
  def read(content):
    path = tmp_path / 'file'
    path.write_bytes(content)
    return tensors.read(path)
  return read


@pytest.fixture
def refused(read, tmp_path):
  """Why a file of some content is refused: one sentence that names the file."""
  def refused(content):
    with pytest.raises(UserError) as error:
      read(content)
    message = str(error.value)
    assert message.startswith(str(tmp_path / 'file')) and '\n' not in message and len(message) < 700
    return message
  return refused


@pytest.fixture
def damaged(read, refused):
  """Cuts off a content and flips bits of it at some places: each is one sentence, or a flipped bit shows in no way."""
  def damaged(content, cuts, flips):
    for end in cuts:
      refused(content[:end])
    rng = np.random.default_rng(0)
    for at in flips:
      flipped = bytearray(content)
      flipped[at] ^= 1 << rng.integers(8)
      try:
        read(bytes(flipped))
      except UserError as error:
        assert '\n' not in str(error)
  return damaged
