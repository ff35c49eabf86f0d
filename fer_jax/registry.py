"""Finds components by name: the module is the registration.

``find('losses', 'cross_entropy')`` imports ``fer_jax/losses/cross_entropy.py`` and returns the object of that name in
it; a class is found without regard to capitals, as ResNet by 'resnet'. Adding a loss, head, backbone, attribution or
data set is adding one file.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from fer_jax.errors import UserError, nearest


def names(kind: str) -> list[str]:
  """Names of all components of ``kind``, a package path below ``fer_jax`` such as ``'models.heads'``."""
  package = importlib.import_module(f'fer_jax.{kind}')
  return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith('_'))


def find(kind: str, name: str) -> Any:
  """Returns the component ``name`` of ``kind``.

  Raises:
    UserError: there is no such component; the message lists those there are.
  """
  if name not in names(kind):
    raise UserError(f"unknown {kind} '{name}'{nearest(str(name), names(kind))}")
  module = importlib.import_module(f'fer_jax.{kind}.{name}')
  plain = name.replace('_', '')
  return next(value for key, value in vars(module).items() if key.replace('_', '').lower() == plain)


def check_options(what: str, function: Callable[..., Any], options: Mapping[str, Any], given: int = 0) -> None:
  """Checks that ``options`` are keyword arguments of ``function``; its first ``given`` arguments come from the caller.

  Raises:
    UserError: an option is unknown, or a required one is missing; the message names ``what`` and the nearest option.
  """
  parameters = list(inspect.signature(function).parameters.values())[given:]
  known = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
  known -= {'parent'}  # Every module of linen has one, and it is no option.
  for name in options:
    if name not in known:
      raise UserError(f"{what} has no option '{name}'{nearest(name, known)}")
  missing = [p.name for p in parameters if p.name in known and p.default is p.empty and p.name not in options]
  if missing:
    raise UserError(f"{what} needs the option(s) {', '.join(missing)}.")
