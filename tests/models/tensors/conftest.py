"""What the tests of readers share: a file of given content, read or refused."""

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
