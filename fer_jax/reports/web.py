"""Makes the folder of ``export --format=web``: a page that runs an exported network in the browser, on your pictures.

The page is plain JavaScript without a build step, see ``web/``. ONNX Runtime Web, which runs the network, is no part of
this project: npm fetches it from its registry, once per folder.
"""

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from etils import epath

from fer_jax.errors import UserError
from fer_jax.reports.template import ENVIRONMENT
from fer_jax.reports.words import brief, named
from fer_jax.runtime import cluster, storage

VERSION = '1.30.0'  # Of onnxruntime-web.
# Of the package's 145 MB what one thread without a GPU needs: the name beside the page, the one in the package and its
# SHA-256. Not every server knows what a .mjs is.
_FILES = {
    'onnxruntime.js': ('dist/ort.wasm.bundle.min.mjs',
                       '11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90'),
    'ort-wasm-simd-threaded.wasm': ('dist/ort-wasm-simd-threaded.wasm',
                                    '3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2'),
}
# The points of ``landmarks.align.TEMPLATE``.
_POINTS = ('left eye, as you see it', 'right eye, as you see it', 'tip of the nose', 'left corner of the mouth',
           'right corner of the mouth')
_FACTS = ('dataset', 'variant', 'protocol', 'training_data', 'licence', 'intended_use', 'size', 'channels', 'alignment',
          'temperature', 'threshold', 'map', 'digests', 'commit')


def write(out: str | os.PathLike[str], about: Mapping[str, Any]) -> None:
  """Writes the folder ``out/web`` and says how to open it; on process 0.

  It holds the page, a copy of ``out/model.onnx``, ``about.json`` and ONNX Runtime Web, and needs no network afterwards.
  A runtime that is in the folder, or whose package ``onnxruntime-web-VERSION.tgz`` is in ``out``, is not fetched again.

  Args:
    out: folder of an export.
    about: the export's about.json.

  Raises:
    UserError: there is no model.onnx; npm is missing or fails; a file of the package is not the published one; one
      cannot be written.
  """
  if not cluster.is_main():
    return
  out = storage.as_path(out)
  web = out / 'web'
  try:
    with storage.explained(out / 'model.onnx', 'read'):
      model = (out / 'model.onnx').read_bytes()
  except FileNotFoundError as error:
    raise UserError(f'no model.onnx in {out}: the page runs that file; export it with --format=onnx,web.') from error
  _fetch(out, web)
  storage.write_bytes(web / 'model.onnx', model)
  storage.write_json(web / 'about.json', about)
  for name in ('page.js', 'pixels.js', 'stage.js'):
    storage.write_text(web / name, _text(f'web/{name}'))
  storage.write_text(web / 'page.css', '\n'.join(map(_text, ('page.css', 'web/page.css'))))  # All pages', and its own.
  storage.write_text(web / 'index.html', ENVIRONMENT.get_template('web/index.html').render(_contents(about)))
  cluster.say(f'Page: python -m http.server --bind 127.0.0.1 --directory {web}, then open http://127.0.0.1:8000 '
              '(opened as a file it does not run).')


def _contents(about: Mapping[str, Any]) -> dict[str, Any]:
  """The variables of index.html."""
  facts = [(key.replace('_', ' '), brief(about[key])) for key in _FACTS if about.get(key) not in (None, '')]
  return {'about': about, 'data': named(about), 'facts': facts, 'runtime': VERSION,
          'calibrated': about['temperature'] not in (None, 1), 'map': brief(about['map']) if about.get('map') else '',
          'points': _POINTS if about.get('template') else (),
          'written': datetime.now().strftime('%Y-%m-%d %H:%M')}


def _text(name: str) -> str:
  """A file of this folder."""
  return ENVIRONMENT.loader.get_source(ENVIRONMENT, name)[0]


def _fetch(out: epath.Path, web: epath.Path) -> None:
  """Puts the files of the runtime into the folder, where they are not there yet."""
  there = lambda name, digest: (web / name).exists() and _digest((web / name).read_bytes()) == digest
  if all(there(name, digest) for name, (_, digest) in _FILES.items()):
    return
  with tempfile.TemporaryDirectory() as folder:
    packed = out / f'onnxruntime-web-{VERSION}.tgz'
    packed = packed if packed.exists() else _download(folder)
    for name, (inside, digest) in _FILES.items():
      try:
        with packed.open('rb') as file, tarfile.open(fileobj=file) as archive:
          content = archive.extractfile(f'package/{inside}').read()
      except (tarfile.TarError, KeyError, EOFError, zlib.error, OSError) as error:
        raise UserError(f'{packed} is damaged ({error}): remove it, and give the same command again.') from error
      if _digest(content) != digest:
        raise UserError(f'{inside} in {packed} is not that of onnxruntime-web {VERSION}: its SHA-256 is '
                        f'{_digest(content)}, not {digest}. Find out where your npm takes packages from.')
      storage.write_bytes(web / name, content)


def _download(folder: str) -> epath.Path:
  """Lets npm fetch the package, which checks it against the registry's own digest."""
  package = f'onnxruntime-web@{VERSION}'
  todo = (f"or type 'npm pack {package}' on a machine where that works and put the file beside model.onnx. What was "
          'exported is kept.')
  if not (npm := shutil.which('npm')):
    raise UserError('the page needs ONNX Runtime Web, which npm fetches, and there is no npm here: install Node.js and '
                    f'give the same command again, {todo}')
  done = subprocess.run([npm, 'pack', package, '--loglevel=error', '--pack-destination', folder], cwd=folder,
                        capture_output=True, text=True, errors='replace')
  packed = epath.Path(folder) / f'onnxruntime-web-{VERSION}.tgz'
  if done.returncode or not packed.exists():
    said = ' '.join((done.stderr or done.stdout).split())[:300] or f'exit status {done.returncode}'
    raise UserError(f'npm could not fetch {package} ({said}): mend that and give the same command again, {todo}')
  return packed


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()
