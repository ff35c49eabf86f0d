"""Files of a run's network for other programs: made, compared with the network on its test faces, and written."""

import datetime
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jaxlib
import numpy as np
from etils import epath

from fer_jax.analysis import prediction
from fer_jax.analysis.program import (
  OPSET,
  PLATFORMS,
  Program,
  check_installed,
  run_onnx,
  run_stablehlo,
  to_onnx,
  to_stablehlo,
)
from fer_jax.analysis.speed import in_turns
from fer_jax.errors import UserError, nearest
from fer_jax.landmarks.align import TEMPLATE
from fer_jax.runtime import cluster, storage
from fer_jax.training import calibration, framing, setup
from fer_jax.training.workdir import commit, now, read_finished, used, variables_digest

FORMATS = ('onnx', 'stablehlo', 'web')
FILES = {'onnx': 'model.onnx', 'stablehlo': 'model.stablehlo'}

TOLERANCE = 1e-4  # Of logits, in units of the largest of them where that is above 1.
SIZES = (1, 32)  # Batches that are timed; the last is that of the comparison.
_RANDOM = 64  # Faces of noise, where the test faces are not here.
_ROUNDS = 15

# What makes one export another one.
_IDENTITY = ('digests', 'map', 'temperature', 'threshold', 'classes')


def export(workdir: str | os.PathLike[str], out: str | os.PathLike[str], formats: Sequence[str], map: str = '',
           data_dir: str | None = None) -> dict[str, Any]:
  """Exports the network of a finished run, prints what was compared, and returns the content of ``out/about.json``.

  Args:
    workdir: of the run.
    out: a folder, new or of an export of the same network.
    formats: of ``FORMATS``; 'web' comes with 'onnx'.
    map: of the run's config; '': ``prediction.explanation``'s choice, or none where the config has no map; 'none'.
    data_dir: where prepared data sets lie, if not where the run's config says.

  Raises:
    UserError: an unknown format or map; a run that has not finished, or whose answers depend on the other faces of a
      batch; a folder with other files; jax2onnx is not installed or does not take the network; a file that does not
      agree with the network. Then nothing is written.
  """
  formats = _chosen(formats)
  if 'onnx' in formats:
    check_installed()
  from fer_jax.reports import card, web
  read_finished(workdir)
  # Float32 whatever it was trained in, and on one device.
  trained = setup.load(workdir, cluster.make_mesh(jax.local_devices()[:1]), ['model.dtype=float32'], data_dir)
  prediction.check_alone(trained)
  options = prediction.explanation(trained, map) if map or trained.system.explain else None
  options = None if map == 'none' else options
  about = _about(trained, options, card.facts(workdir))
  program = Program(trained.system.recipe, options, about['temperature'], jax.device_get(trained.variables),
                    about['size'], about['channels'])
  about |= {'inputs': _described(program.inputs('N')), 'outputs': list(program.outputs)}
  out = storage.as_path(out)
  earlier = _earlier(out, about)
  contents = {}
  if 'onnx' in formats:
    contents['onnx'] = to_onnx(program, {key: value if isinstance(value, str) else json.dumps(value)
                                         for key, value in about.items()})
  if 'stablehlo' in formats:
    contents['stablehlo'] = to_stablehlo(program)
    about['stablehlo'] = {'jaxlib': jaxlib.__version__, 'platforms': list(PLATFORMS), 'readable_until': _expires()}
  into = program.folded.into
  cluster.say(f'{len([layer for layer in into.values() if layer])} of {len(into)} BatchNorms went into the layer before '
              'them, the others into one multiplication and one addition.' if into else 'There is no BatchNorm.')
  about |= {'written': now(), 'commit': commit(), 'versions': used(),
            'checked': earlier.get('checked', {}) | _checked(program, trained, contents)}
  about = {key: earlier[key] for key in ('stablehlo',) if key in earlier} | about
  for name, content in contents.items():
    _put(out / FILES[name], content)
    cluster.say(f'{out / FILES[name]}: {len(content) / 1e6:.1f} MB, {_of(name, about)}.')
  storage.write_json(out / 'about.json', about)
  card.write_card(workdir, out / card.FILE)
  if 'web' in formats:
    web.write(out, about)
  return about


def _chosen(formats: Sequence[str]) -> list[str]:
  """The formats, each once, with ONNX where the page needs it."""
  for name in formats:
    if name not in FORMATS:
      raise UserError(f"--format: there is no format '{name}'{nearest(name, FORMATS)}")
  if not formats:
    raise UserError(f"--format: give one or several of {', '.join(FORMATS)}.")
  return [name for name in FORMATS if name in formats or name == 'onnx' and 'web' in formats]


def _about(trained: setup.Trained, options: Mapping[str, Any] | None, facts: Mapping[str, str]) -> dict[str, Any]:
  """What a user of the files must know, as JSON has it."""
  known = calibration.read(trained.workdir, trained.step) or {'temperature': 1.0, 'threshold': None}
  framed, data = framing.recalled(trained), trained.protocol.data
  aligned = bool(framed['align_size'])
  named = None
  if options:
    names = [name for name in trained.system.explain if prediction.explanation(trained, name) == options]
    named = {'name': names[0], **options}
  config = storage.read_text(trained.workdir / 'config.json')
  return {
      'name': trained.protocol.name, 'classes': list(trained.record['classes']), 'size': framed['size'],
      'channels': data.channels or data.open(data.train).channels,
      'alignment': 'similarity' if aligned else 'none',
      'template': TEMPLATE.tolist() if aligned else (framed['frame'] or {}).get('points'),
      'temperature': float(known['temperature']), 'threshold': known['threshold'], 'map': named,
      'digests': {'variables': variables_digest(trained.variables),
                  'config': hashlib.sha256(config.encode()).hexdigest()},
      'trained_by': trained.record['commit'], 'step': trained.step, 'seed': trained.protocol.seed,
      'dataset': data.dataset, 'variant': data.variant, **facts}


def _described(inputs: Mapping[str, Any]) -> dict[str, str]:
  return {name: f"{one.dtype} ({', '.join(map(str, one.shape))})" for name, one in inputs.items()}


def _earlier(out: epath.Path, about: Mapping[str, Any]) -> dict[str, Any]:
  """The about.json of an export of the same network in the folder; {} where it is new.

  Raises:
    UserError: the folder holds something else.
  """
  with storage.explained(out, 'read'):
    there = {path.name for path in out.iterdir()} if out.exists() else set()
  if not there:
    return {}
  try:
    earlier = storage.read_json(out / 'about.json')
    same = all(json.dumps(earlier[key]) == json.dumps(about[key]) for key in _IDENTITY)
  except (FileNotFoundError, ValueError, KeyError, TypeError):
    same = not {name for name in there if not name.endswith(('.part', '.tgz'))}
    earlier = {}
  if not same:
    raise UserError(f'{out} is not empty, and holds no export of this network with this map and calibration; choose '
                    'another --out, or empty it.')
  return earlier


def _expires() -> str:
  """Six months from today: until then at the most JAX promises to read what it exports."""
  today = datetime.date.today()
  year, month = divmod(today.year * 12 + today.month - 1 + 6, 12)
  return min(datetime.date(year, month + 1, 1) + datetime.timedelta(today.day - 1),
             datetime.date(year + (month + 1) // 12, (month + 1) % 12 + 1, 1)).isoformat()


def _of(name: str, about: Mapping[str, Any]) -> str:
  """What a file is, in words."""
  shapes = ' and '.join(f'{key} {text}' for key, text in about['inputs'].items())
  if name == 'onnx':
    return f"opset {OPSET}, {shapes} to {', '.join(about['outputs'])}"
  known = about['stablehlo']
  return (f"for {', '.join(PLATFORMS)}. JAX promises to read it with versions made up to six months after this one, "
          f"jaxlib {known['jaxlib']}: until {known['readable_until']} at the most. The checkpoint in the run's folder is "
          'what keeps')


def _checked(program: Program, trained: setup.Trained, contents: Mapping[str, bytes]) -> dict[str, Any]:
  """Compares files with the network, on its test faces where they are here, and times both.

  Raises:
    UserError: one does not agree.
  """
  runners = {name: (run_onnx if name == 'onnx' else run_stablehlo)(content) for name, content in contents.items()}
  with jax.default_matmul_precision('highest'):  # Accelerators would round factors, and the files be blamed.
    network = jax.jit(program)
    faces, of = _faces(program, trained)
    inputs = [faces[name] for name in program.inputs(1)]
    wanted = _answers(network, inputs, padded=True)['logits']
    found = {}
    for name, run in runners.items():
      logits = _answers(run, inputs, padded=name == 'stablehlo')['logits']
      found[name] = {'faces': len(wanted), 'of': of, **_compared(FILES[name], wanted, logits, of)}
    seconds = _times({'jax': network, **runners}, inputs)
  for name, numbers in found.items():
    numbers['milliseconds'] = {str(size): {key: seconds[size][key] for key in ('jax', name)} for size in SIZES}
    told = '; '.join(f"{size} face{'s' * (size > 1)}: JAX {seconds[size]['jax']:.2f} ms, {RUNTIMES[name]} "
                     f'{seconds[size][name]:.2f} ms' for size in SIZES)
    cluster.say(f"{RUNTIMES[name]} agrees with JAX on {numbers['faces']:,} {of}: logits to "
                f"{numbers['largest_difference']:.1e}, the class of {numbers['same_class']:,}. {told}.")
  return found


RUNTIMES = {'onnx': 'onnxruntime', 'stablehlo': 'StableHLO'}


def _faces(program: Program, trained: setup.Trained) -> tuple[dict[str, np.ndarray], str]:
  """The test faces of a run, or noise where they are not here, and which of the two, in words."""
  names = ('image', *(['landmarks'] if 'landmarks' in program.inputs(1) else []))
  protocol = trained.protocol
  try:
    split = protocol.data.open(protocol.data.test)
    taken = split.take(range(len(split)), names)
    of = 'test faces'
  except UserError as error:
    rng = np.random.default_rng(0)
    taken = {'image': rng.integers(0, 256, (_RANDOM, program.size, program.size, program.channels), np.uint8),
             'landmarks': rng.uniform(0.2, 0.8, (_RANDOM, 68, 2)).astype(np.float32)}
    cluster.say(f'The test faces are not here ({error}): the files are compared on noise.')
    of = 'images of noise'
  return {'images': taken['image']} | {name: taken[name] for name in names[1:]}, of


def _answers(run: Callable[..., Any], inputs: Sequence[np.ndarray], padded: bool) -> dict[str, np.ndarray]:
  """What a program says of all faces, in batches; ``padded`` ones have one size, and are compiled once."""
  size, parts = SIZES[-1], []
  for first in range(0, len(inputs[0]), size):
    batch = [each[first:first + size] for each in inputs]
    count = len(batch[0])
    if padded and count < size:
      batch = [np.concatenate([each, np.repeat(each[:1], size - count, axis=0)]) for each in batch]
    parts.append({name: np.asarray(value)[:count] for name, value in run(*batch).items()})
  return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _compared(file: str, wanted: np.ndarray, found: np.ndarray, of: str) -> dict[str, Any]:
  """How far logits (N, K) are from those of the network.

  Raises:
    UserError: too far.
  """
  difference, scale = float(np.abs(found - wanted).max()), max(1.0, float(np.abs(wanted).max()))
  same = found.argmax(axis=1) == wanted.argmax(axis=1)
  top = np.sort(wanted, axis=1)
  undecided = top[:, -1] - top[:, -2] <= TOLERANCE * scale  # Either class is right.
  if not difference <= TOLERANCE * scale or not (same | undecided).all():
    raise UserError(f'{file} does not agree with the network on {len(wanted):,} {of}: its logits are up to '
                    f'{difference:.1e} away (allowed {TOLERANCE * scale:.1e}), and {(~same).sum():,} have another class. '
                    'Nothing was written. Please report it with the versions in run.json.')
  return {'largest_difference': difference, 'largest_logit': scale, 'same_class': int(same.sum())}


def _times(programs: Mapping[str, Callable[..., Any]], inputs: Sequence[np.ndarray]) -> dict[int, dict[str, float]]:
  """{size of a batch: {program: milliseconds, the median of several in turns}}."""
  found = {}
  for size in SIZES:
    batch = [np.resize(each, (size, *each.shape[1:])) for each in inputs]
    work = [lambda _, run=run, batch=batch: jax.block_until_ready(run(*batch)) for run in programs.values()]
    for one in work:
      one(0)
    seconds = in_turns(work, _ROUNDS, time.perf_counter)
    found[size] = {name: round(1e3 * float(value), 3)
                   for name, value in zip(programs, np.median(seconds, axis=0), strict=True)}
  return found


def _put(path: epath.Path, content: bytes) -> None:
  """Puts bytes in place of a file, or leaves the old one."""
  if not cluster.is_main():
    return
  with storage.explained(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + '.part')
    beside.write_bytes(content)
    beside.replace(path)
