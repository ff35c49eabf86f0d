"""Where a user's files lie: in a local folder, '~' being the home folder, or under gs://. Needs no JAX."""

import importlib.util
import os
import re

from etils import epath

from fer_jax.errors import UserError


def expand(path: str | os.PathLike[str]) -> str:
  """The path with '~' or '~user' at its start replaced: a shell leaves it in ``--workdir=~/runs``.

  Raises:
    UserError: there is no such user.
  """
  text = os.path.expanduser(os.fspath(path))
  if text.startswith('~'):
    raise UserError(f"{text}: there is no user '{text[1:].partition('/')[0]}'; write ./{text} for a name that begins "
                    "with '~'.")
  return text


def as_path(path: str | os.PathLike[str]) -> epath.Path:
  """The path of a local file or folder, or of one under gs://.

  Raises:
    UserError: it is of another kind of storage or of no user, or gs:// cannot be reached from this installation.
  """
  text = expand(path)
  if re.match(r'\w+:/', text) and not is_remote(text):
    raise UserError(f'{text}: give a local path, or one that begins with gs://.')
  if is_remote(text) and not any(map(importlib.util.find_spec, ('gcsfs', 'tensorflow'))):
    raise UserError(f'{text}: gs:// paths need a package that is not installed: pip install "fer_jax[gcs]"')
  return epath.Path(text)


def absolute(path: str | os.PathLike[str]) -> epath.Path:
  """The path from the root of its file system."""
  path = as_path(path)
  return path if is_remote(path) else epath.Path(os.path.abspath(path))


def is_remote(path: str | os.PathLike[str]) -> bool:
  """Whether it is under gs://."""
  return os.fspath(path).startswith('gs://')
