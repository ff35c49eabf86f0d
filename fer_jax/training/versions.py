"""config.json of another version, brought to today's keys."""

import copy
import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from fer_jax.errors import UserError
from fer_jax.runtime import storage
from fer_jax.training import config_files

# Runs have had these from the first version on: where one is absent, the file is not a whole config.
_FIRST = ('name', 'seed', 'data.dataset', 'data.train', 'data.test', 'data.size', 'model.backbone.name',
          'model.head.name', 'losses', 'optimizer', 'epochs', 'batch_size', 'image_size')

# Below these every run has keys of its own.
_OWN = ('sources', 'comparisons', 'losses', 'explain', 'model.backbone', 'model.head')


def bring_up(settings: Mapping[str, Any]) -> dict[str, Any]:
  """The content of config.json with every key of today; keys that today has not stay.

  A key that came later has the value in configs/common.py. Where runs were other before it came, it is put here.

  Raises:
    UserError: it is no whole config; the message says what it lacks, or which value is of another kind.
  """
  settings = copy.deepcopy(dict(settings))
  known = storage.flat(settings)
  if missing := [key for key in _FIRST if not any(name == key or name.startswith(f'{key}.') for name in known)]:
    raise UserError(f"it lacks {', '.join(missing[:3])}")
  settings.pop('seeds', None)
  data = settings['data']
  if 'copies' in data:
    data['duplicates'] = data.pop('copies')
  data.pop('cache', None)
  if data.pop('balanced', False):
    data['order'] = 'balanced'
  if settings.get('select') == 'ema':  # Once one key said which step and which of its variables.
    settings |= {'select': 'last', 'variables': 'ema'}
  _fill(settings, _defaults(data['dataset']))
  return settings


def unknown(settings: Mapping[str, Any]) -> list[str]:
  """The dotted keys of a brought-up config.json that this version does not know."""
  return list(_unknown(settings, _defaults(settings['data']['dataset'])))


def _unknown(settings: Mapping[str, Any], ours: Mapping[str, Any], above: str = '') -> Iterator[str]:
  for name, value in settings.items():
    key = above + name
    if name not in ours:
      yield key
    elif isinstance(value, dict) and isinstance(ours[name], dict) and key not in _OWN:
      yield from _unknown(value, ours[name], f'{key}.')


def known(settings: Mapping[str, Any]) -> dict[str, Any]:
  """A brought-up config.json without those keys."""
  settings = copy.deepcopy(dict(settings))
  for key in unknown(settings):
    *path, last = key.split('.')
    node = functools.reduce(lambda inner, name: inner[name], path, settings)
    del node[last]
  return settings


def _fill(settings: dict[str, Any], defaults: Mapping[str, Any], above: str = '') -> None:
  for name, value in defaults.items():
    key = above + name
    if name not in settings:
      settings[name] = {} if key in _OWN else value
    elif _kind(settings[name]) is not _kind(value):
      raise UserError(f'its {key} is {json.dumps(settings[name])}')
    elif key in _OWN:
      if wrong := [entry for entry, own in settings[name].items() if '.' not in key and not isinstance(own, dict)]:
        raise UserError(f'its {key}.{wrong[0]} is {json.dumps(settings[name][wrong[0]])}')
    elif isinstance(value, dict):
      _fill(settings[name], value, f'{key}.')


def _kind(value: Any) -> type:
  return float if isinstance(value, int) and not isinstance(value, bool) else type(value)


def _defaults(dataset: str) -> dict[str, Any]:
  """Every key of ``configs/common.py`` with its value, as JSON has it."""
  return json.loads(_common(dataset))


@functools.cache
def _common(dataset: str) -> str:
  common = config_files.run(str(config_files.folder() / 'common.py'))
  # What a data set decides was there from the first version on, so that any will do for one of a user's own.
  return common['get_config'](dataset if dataset in common['DATASETS'] else 'ferplus').to_json_best_effort()
