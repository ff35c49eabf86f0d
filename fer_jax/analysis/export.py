"""A run's network as files for other programs: ONNX, StableHLO, and a page that runs it in the browser.

What is exported is ``prediction.answer``, with the run's variables and its pre-processing inside.
"""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import importlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import export as stablehlo

from fer_jax.analysis import exported, graph, prediction
from fer_jax.data.reading import streams
from fer_jax.errors import UserError, nearest
from fer_jax.landmarks import align
from fer_jax.landmarks.regions import region_count
from fer_jax.models.convolution import for_any_platform
from fer_jax.models.folding import Folded, fold
from fer_jax.reports import card, web
from fer_jax.runtime import cluster, storage
from fer_jax.training import calibration, evaluation, framing, setup
from fer_jax.training.workdir import digest, read_finished, used

FORMATS = ('onnx', 'stablehlo', 'web')
PLATFORMS = ('cpu', 'cuda', 'tpu')  # Of a StableHLO file.
OPSET = 17  # Of ONNX.

_FILES = {'onnx': 'model.onnx', 'stablehlo': 'model.stablehlo'}
_NEEDS = {'onnx': ('jax2onnx', 'onnx', 'onnxruntime'), 'stablehlo': ('flatbuffers',)}
_MONTHS = 6  # For which JAX promises that its later releases read what it serialises.


class Program(NamedTuple):
  """A network to be exported: ``function(images[, landmarks])`` returns a dict of arrays, all of them rows."""

  function: Callable[..., dict[str, jax.Array]]
  inputs: tuple[str, ...]
  size: int  # Side of its images in pixels.
  channels: int
  outputs: tuple[str, ...]

  def like(self) -> list[jax.ShapeDtypeStruct]:
    """The forms of the inputs, for any number of faces."""
    rows, = stablehlo.symbolic_shape('N')
    forms = {'images': ((rows, self.size, self.size, self.channels), jnp.uint8), 'landmarks': ((rows, 68, 2),
                                                                                                jnp.float32)}
    return [jax.ShapeDtypeStruct(*forms[name]) for name in self.inputs]


def export_run(workdir: str, out: str, formats: Sequence[str], *, map: str = '', data_dir: str | None = None
               ) -> dict[str, Any]:
  """Writes a finished run's network into the folder ``out``: whole and checked, or not at all.

  In it are model.onnx, model.stablehlo and web/, as ``formats`` says, about.json and MODEL_CARD.md. Every file is
  loaded again and compared with the network on the faces of the test split, or where they are not here on noise.

  Args:
    formats: of ``FORMATS``; 'web' needs 'onnx' and brings it.
    map: of ``config.explain``, see ``prediction.explanation``; 'none': no map.
    data_dir: where prepared data sets lie, if not where the run's config says.

  Returns:
    The content of about.json.

  Raises:
    UserError: an unknown format, a package that is missing, a folder with other files in it, no finished run, a network
      whose answers depend on the other faces of a batch, a part that ONNX does not know, or a file that disagrees.
  """
  formats = _formats(formats)
  read_finished(workdir)
  out = storage.as_path(out)
  _check_out(out)
  mesh = cluster.make_mesh(jax.local_devices()[:1])
  trained = setup.load(workdir, mesh, ['model.dtype=float32'], data_dir)  # No file rounds where a device would.
  prediction.check_alone(trained)
  map = map or prediction.default_map(trained) or 'none'
  options = None if map == 'none' else prediction.explanation(trained, map)
  known = calibration.read(trained.workdir, trained.step) or {'temperature': 1.0, 'threshold': None}
  framed = framing.recalled(trained)
  size, channels = framed['size'], trained.record['channels']
  program, reference = make_programs(trained.system, trained.variables, options, known['temperature'], size, channels)
  about = _about(trained, known, framed, map, options)
  faces = _faces(trained, program)
  part = out.with_name(out.name + '.part')
  try:
    for name in formats:
      if name != 'web':
        cluster.say(f'{_FILES[name]} is made and compared with the network.')
        written = {'onnx': to_onnx, 'stablehlo': to_stablehlo}[name](program, about)
        about.setdefault('checked', {})[name] = exported.check(exported.OPEN[name](written), reference, faces, name)
        storage.write_bytes(part / _FILES[name], written)
    card.write_card(workdir, part / 'MODEL_CARD.md')
    with storage.explained(out):
      out.mkdir(parents=True, exist_ok=True)
      about['checked'] |= _kept(out, about)
      storage.write_json(part / 'about.json', about)
      for path in part.iterdir():
        path.replace(out / path.name)
  finally:
    if part.exists():
      shutil.rmtree(part)
  if 'web' in formats:
    web.write(out, about)
  return about


def make_programs(system: setup.System, variables: Mapping[str, Any], explanation: Mapping[str, Any] | None,
                  temperature: float, size: int, channels: int) -> tuple[Program, Callable[..., dict[str, jax.Array]]]:
  """What is exported of a network, and the compiled network itself that it has to equal.

  Args:
    variables: {'params', 'batch_stats'}; constants of the program, BatchNorms folded.
    explanation: options of its map, or None.
    temperature: that its logits are divided by.
    size: side of its images in pixels, with ``channels`` 1 or 3.
  """
  recipe = system.recipe
  regions = recipe.regions and region_count(**recipe.regions)
  image = jnp.zeros((1, *([regions] if regions else []), recipe.image_size, recipe.image_size, 3))
  with for_any_platform():
    folded = fold(lambda known: recipe.model.apply(known, image, False), jax.device_get(variables))
  inputs = ('images', 'landmarks') if regions and recipe.regions['scheme'] == 'landmark' else ('images',)
  answer = functools.partial(prediction.answer, recipe, explanation, temperature)
  outputs = ('probabilities', 'logits', 'embedding', *(['map'] if explanation else []))

  def apart(known: Any, arrays: Sequence[jax.Array]) -> dict[str, jax.Array]:
    batch = dict(zip(('image', 'landmarks'), arrays, strict=False))
    answered = answer(known, batch)
    return {name: answered[name].astype(jnp.float32) for name in outputs}

  program = Program(functools.partial(_folded_answer, folded, apart), inputs, size, channels, outputs)
  return program, jax.jit(lambda *arrays: apart(variables, arrays))


def _folded_answer(folded: Folded, apart: Callable[..., Any], *arrays: jax.Array) -> dict[str, jax.Array]:
  with folded.applied(), for_any_platform():
    return apart(folded.variables, arrays)


def to_onnx(program: Program, about: Mapping[str, Any]) -> bytes:
  """An ONNX file of a program, with ``about`` in its metadata, each value as JSON where it is no text.

  Raises:
    UserError: jax2onnx does not know a part of it.
  """
  import onnx
  try:
    model = _convert(program)
    onnx.checker.check_model(model)
  except Exception as error:  # Each part of the converter raises its own.
    reason = ' '.join(str(error).split())[:300] or type(error).__name__
    part, advice = 'the network', 'take --format=stablehlo'
    if 'map' in program.outputs:
      with contextlib.suppress(Exception):
        _convert(program._replace(outputs=tuple(name for name in program.outputs if name != 'map')))
        part, advice = 'the map', 'choose another one by --map, or --map=none'
    raise UserError(f'{part} does not go into ONNX: {advice}. jax2onnx says: {reason}') from error
  for name, value in about.items():
    entry = model.metadata_props.add()
    entry.key, entry.value = name, value if isinstance(value, str) else storage.to_json(value)
  return model.SerializeToString()


def _convert(program: Program) -> Any:
  import jax2onnx
  like = program.like()

  def wanted(*arrays: jax.Array) -> dict[str, jax.Array]:
    answered = program.function(*arrays)
    return {name: answered[name] for name in program.outputs}

  simple = graph.simplified(wanted, *like)
  return jax2onnx.to_onnx(lambda *arrays: tuple(simple(*arrays)[name] for name in program.outputs), like,
                          model_name='fer_jax', opset=OPSET, input_names=list(program.inputs),
                          output_names=list(program.outputs))


def to_stablehlo(program: Program, about: Mapping[str, Any]) -> bytes:
  """A serialised ``jax.export.Exported`` of a program, for ``PLATFORMS``; about.json beside it has the facts."""
  del about
  return bytes(stablehlo.export(jax.jit(program.function), platforms=PLATFORMS)(*program.like()).serialize())


def _formats(names: Sequence[str]) -> list[str]:
  """The formats in order, those that one of them needs before it; raises a UserError where one cannot be made."""
  for name in names:
    if name not in FORMATS:
      raise UserError(f"--format={name}{nearest(name, FORMATS)}")
  if not names:
    raise UserError(f"--format: name one or more of {', '.join(FORMATS)}.")
  wanted = [name for name in FORMATS if name in names or name == 'onnx' and 'web' in names]
  for format in wanted:
    for package in _NEEDS.get(format, ()):
      try:
        importlib.import_module(package)
      except ImportError as error:
        raise UserError(f'--format={format} needs {package} ({error}): pip install "fer_jax[export]"') from error
  return wanted


def _check_out(out: epath.Path) -> None:
  """Raises UserError where a folder holds what no export has left."""
  own = {*_FILES.values(), 'about.json', 'MODEL_CARD.md', 'web'}
  with storage.explained(out, 'read'):
    if out.exists() and (not out.is_dir() or any(
        path.name not in own and path.suffix != '.tgz' for path in out.iterdir())):
      raise UserError(f'--out={out} is not a folder of an export: it holds other files; give another folder.')


def _kept(out: epath.Path, about: Mapping[str, Any]) -> dict[str, Any]:
  """What is known of the files of an earlier export that stay; those of another network, map or temperature go."""
  others = [name for name in _FILES if name not in about['checked'] and (out / _FILES[name]).exists()]
  try:
    before = storage.read_json(out / 'about.json')
    if others and all(before[key] == about[key] for key in ('digests', 'map', 'temperature')):
      return {name: before['checked'][name] for name in others}
  except (FileNotFoundError, ValueError, KeyError, TypeError):
    pass
  for name in others:
    (out / _FILES[name]).unlink()
    cluster.say(f'{out / _FILES[name]} was of another export, and is removed.')
  return {}


def _about(trained: setup.Trained, known: Mapping[str, Any], framed: Mapping[str, Any], map: str,
           options: Mapping[str, Any] | None) -> dict[str, Any]:
  """The facts that travel with the files."""
  record, data = trained.record, trained.protocol.data
  template = align.TEMPLATE.tolist() if framed['align_size'] else (framed['frame'] or {}).get('points')
  config = storage.read_text(trained.workdir / 'config.json')
  until = datetime.date.today() + datetime.timedelta(days=30 * _MONTHS)
  return {
      'name': trained.protocol.name, 'classes': list(record['classes']), 'size': framed['size'],
      'channels': record['channels'], 'alignment': 'similarity' if framed['align_size'] else 'none',
      'template': None if template is None else np.asarray(template).tolist(),
      'temperature': float(known['temperature']), 'threshold': known['threshold'],
      'map': options and {'name': map, **options}, 'landmarks': _wants_landmarks(trained),
      'dataset': data.dataset, 'variant': data.variant, 'seed': trained.protocol.seed, 'step': trained.step,
      'commit': record['commit'], 'digests': {'variables': digest(trained.variables),
                                              'config': hashlib.sha256(config.encode()).hexdigest()},
      **card.facts(trained.workdir), 'versions': used(),
      'stablehlo_until': f'JAX promises that its releases of the {_MONTHS} months after {jax.__version__} read the '
                         f'StableHLO file, so not beyond {until.isoformat()}; the checkpoint is the archive'}


def _wants_landmarks(trained: setup.Trained) -> bool:
  return bool(trained.system.recipe.regions) and trained.system.recipe.regions['scheme'] == 'landmark'


def _faces(trained: setup.Trained, program: Program) -> list[np.ndarray]:
  """The test split's faces as the program's inputs, or noise where they are not here."""
  names = {'images': 'image', 'landmarks': 'landmarks'}
  try:
    faces = evaluation.open_split(trained, trained.protocol.data.test)
    if (faces.size, faces.channels) != (program.size, program.channels):
      faces = dataclasses.replace(faces, size=program.size, channels=program.channels)
    rows = streams.rows(faces, range(len(faces)))
    return [rows[names[name]] for name in program.inputs]
  except UserError as error:
    cluster.say(f'The files are compared with the network on noise: {error}')
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (64, program.size, program.size, program.channels)).astype(np.uint8)
    return [images, random.random((64, 68, 2), np.float32)][:len(program.inputs)]


def printed(about: Mapping[str, Any], out: str) -> str:
  """What the command says in the end."""
  lines = []
  for name, found in about['checked'].items():
    times = ', '.join(f"{size} face(s) {1e3 * each['file']:.2g} ms (JAX {1e3 * each['jax']:.2g})"
                      for size, each in found['seconds'].items())
    lines.append(f"{epath.Path(out) / _FILES[name]}: on {found['faces']:,} faces logits at most "
                 f"{found['logits_apart']:.1e} from the network's, the same class on all; {times}.")
  if 'stablehlo' in about['checked']:
    lines.append(f"{about['stablehlo_until']}.")
  mark = json.dumps(about['protocol'], ensure_ascii=False)
  return '\n'.join([*lines, f'Protocol: {mark}'])
