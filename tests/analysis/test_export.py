"""Exported files load without fer_jax and say what the network says; what cannot be exported is told."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from fer_jax.analysis import export, exported
from fer_jax.errors import UserError
from fer_jax.runtime import storage
from fer_jax.training import config_files, setup
from tests import faces
from tests.training.test_evaluation import make_calibrated

SMALL = ('image_size=16', 'model.backbone.depth=10', 'model.backbone.width=4')
# The forms of what is exported: of the quickstart, with regions, an amending head, a transformer, an embedding.
FORMS = {
    'quickstart': ('quickstart', *SMALL),
    'ran': ('ran', *SMALL, 'regions.scheme=fixed5'),
    'ran_landmark': ('ran', *SMALL, 'regions.scheme=landmark'),
    'arm': ('baseline', *SMALL, "model.head={'name':'arm','block':4,'kernel':8,'stride':4}"),
    'vit': ('baseline', 'image_size=16', "model.head={'name':'linear'}",
            "model.backbone={'name':'vit','size':'tiny','depth':4,'width':12,'heads':3,'patch':8}"),
    'embedding': ('baseline', *SMALL, "model.head={'name':'embedding','dim':8}")}
CLASSES = [f'class {k}' for k in range(7)]
MAP = {'attribution': 'grad_input', 'target': 'predicted', 'tap': 'stage4'}

# What a user's own program does with the files of a folder.
LOAD = '''
import sys, numpy as np
from pathlib import Path
folder, kind = Path(sys.argv[1]), sys.argv[2]
for path in sorted(folder.glob('*.' + kind)):
  given = dict(np.load(path.with_suffix('.npz')))
  if kind == 'onnx':
    import onnxruntime
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    names = [each.name for each in session.get_outputs()]
    found = dict(zip(names, session.run(names, given)))
  else:
    import jax.export
    found = jax.export.deserialize(bytearray(path.read_bytes())).call(*(given[k] for k in sorted(given)))
  np.savez(path.with_suffix('.' + kind + '.npz'), **found)
assert not {'fer_jax', 'flax'} & set(sys.modules)
'''


def variables_of(system):
  """Its initial variables, with running statistics as of a trained network."""
  rng, state = np.random.default_rng(0), system.initial()
  noise = lambda path, leaf: (np.exp if path[-1].key == 'var' else np.asarray)(rng.normal(0, 0.3, leaf.shape))
  statistics = jax.tree_util.tree_map_with_path(
      lambda path, leaf: noise(path, leaf).astype(np.float32), state.batch_stats)
  return {'params': jax.device_get(state.params), 'batch_stats': statistics}


@pytest.fixture(scope='module')
def programs():
  made = {}
  for name, (config, *changes) in FORMS.items():
    config = config_files.load_config(config)
    config_files.change_config(config, changes)
    system = setup.make_system(config, CLASSES, 10)
    made[name] = export.make_programs(system, variables_of(system), MAP, 2.0, 16, 1)
  return made


def given(program, rows=3):
  rng = np.random.default_rng(1)
  arrays = {'images': rng.integers(0, 256, (rows, 16, 16, 1)).astype(np.uint8),
            'landmarks': rng.uniform(0.2, 0.8, (rows, 68, 2)).astype(np.float32)}
  arrays['landmarks'][0] = np.nan  # Not found.
  return {name: arrays[name] for name in program.inputs}


def loaded(programs, folder, kind):
  """What a process without fer_jax gets out of files of all programs."""
  for name, (program, _) in programs.items():
    write = {'onnx': export.to_onnx, 'stablehlo': export.to_stablehlo}[kind]
    (folder / f'{name}.{kind}').write_bytes(write(program, {'classes': CLASSES, 'name': 'é'}))
    np.savez(folder / f'{name}.npz', **given(program))
  subprocess.run([sys.executable, '-I', '-c', LOAD, str(folder), kind], check=True, cwd=folder,
                 env={**os.environ, 'JAX_PLATFORMS': 'cpu'})
  return {name: dict(np.load(folder / f'{name}.{kind}.npz')) for name in programs}


def check(programs, found):
  for name, (program, reference) in programs.items():
    expected = jax.device_get(reference(*given(program).values()))
    assert found[name].keys() == expected.keys() == {'probabilities', 'logits', 'embedding', 'map'}, name
    for key, value in expected.items():
      assert found[name][key].dtype == np.float32
      np.testing.assert_allclose(found[name][key], value, atol=1e-4 * max(abs(value).max(), 1e-3), err_msg=name + key)
    z = expected['logits'].astype(np.float64) / 2.0
    softmax = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[name]['probabilities'], softmax, atol=1e-5)


def test_stablehlo_is_loaded_without_fer_jax_and_agrees(programs, tmp_path):
  check(programs, loaded(programs, tmp_path, 'stablehlo'))
  file = jax.export.deserialize(bytearray((tmp_path / 'ran.stablehlo').read_bytes()))
  assert set(file.platforms) == {'cpu', 'cuda', 'tpu'}
  assert str(file.in_avals[0].shape) == '(N, 16, 16, 1)' and file.in_avals[0].dtype == np.uint8


def test_onnx_is_loaded_without_fer_jax_and_agrees(programs, tmp_path):
  for package in ('jax2onnx', 'onnxruntime'):
    pytest.importorskip(package, reason=f'{package} is missing: pip install "fer_jax[export]"')
  check(programs, loaded(programs, tmp_path, 'onnx'))
  import onnx
  model = onnx.load(str(tmp_path / 'quickstart.onnx'))
  facts = {entry.key: entry.value for entry in model.metadata_props}
  assert json.loads(facts['classes']) == CLASSES and facts['name'] == 'é'
  assert [each.name for each in model.graph.input] == ['images']
  # BatchNorms went into convolutions.
  assert not {node.op_type for node in model.graph.node} & {'BatchNormalization', 'Sqrt'}


def test_a_map_that_onnx_does_not_know_is_named(programs, monkeypatch):
  pytest.importorskip('jax2onnx', reason='jax2onnx is missing: pip install "fer_jax[export]"')
  import jax2onnx
  program, _ = programs['vit']

  def convert(function, like, output_names, **_):
    if 'map' in output_names:
      raise NotImplementedError('no such primitive')

  monkeypatch.setattr(jax2onnx, 'to_onnx', convert)
  with pytest.raises(UserError, match='the map does not go into ONNX: choose another one by --map, or --map=none. '
                                      'jax2onnx says: no such primitive'):
    export.to_onnx(program, {})
  with pytest.raises(UserError, match='the network does not go into ONNX: take --format=stablehlo'):
    export.to_onnx(program._replace(outputs=('logits', 'embedding')), {})


def test_a_batch_of_any_size_gives_a_face_the_same_answer(programs):
  program, _ = programs['arm']
  opened = exported.open_stablehlo(export.to_stablehlo(program, {}))
  images, = given(program, 5).values()
  np.testing.assert_allclose(opened(images)['logits'][:2], opened(images[:2])['logits'], atol=1e-6)


def test_a_file_that_disagrees_is_an_error(programs):
  program, reference = programs['quickstart']
  faces = [*given(program).values()]
  assert exported.check(reference, reference, faces, 'onnx')['same_class'] == 3
  wrong = lambda *arrays: {'logits': np.asarray(reference(*arrays)['logits']) + 0.01}
  with pytest.raises(UserError, match='onnx: the file does not say what the network says: logits are up to 0.01 '
                                      'apart, and 0 of 3 classes differ'):
    exported.check(wrong, reference, faces, 'onnx')
  turned = lambda *arrays: {'logits': -np.asarray(reference(*arrays)['logits'])}
  with pytest.raises(UserError, match='3 of 3 classes differ'):
    exported.check(turned, reference, faces, 'onnx')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run that was calibrated."""
  return make_calibrated(storage.as_path(tmp_path_factory.mktemp('run')))


def no_data(*_):
  raise UserError('its data are not here.')


def disagree(*_):
  raise UserError('it disagrees')


def test_a_run_is_exported_with_its_facts(run, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(export.evaluation, 'open_split', no_data)
  monkeypatch.setattr(export.card, 'write_card', lambda workdir, path: storage.write_text(path, 'a card'))
  monkeypatch.setattr(export.card, 'facts', lambda workdir: {'protocol': 'LEAKY', 'licence': 'MIT'})
  about = export.export_run(str(run), str(tmp_path / 'out'), ['stablehlo'])
  assert {path.name for path in (tmp_path / 'out').iterdir()} == {'model.stablehlo', 'about.json', 'MODEL_CARD.md'}
  assert storage.read_json(tmp_path / 'out/about.json') == json.loads(json.dumps(about))
  assert about['temperature'] == 2.5 and about['threshold'] == 0.3 and about['protocol'] == 'LEAKY'
  assert about['classes'] == list(faces.CLASSES) and (about['size'], about['channels']) == (16, 1)
  assert about['checked']['stablehlo']['logits_apart'] < 1e-4
  said = export.printed(about, 'out')
  assert 'the same class on all' in said and 'the checkpoint is the archive' in said
  again = export.export_run(str(run), str(tmp_path / 'out'), ['stablehlo'])  # Its own files are replaced.
  assert again['digests'] == about['digests']
  (tmp_path / 'out/model.onnx').write_bytes(b'of another run')
  storage.write_json(tmp_path / 'out/about.json', about | {'temperature': 1.0})
  export.export_run(str(run), str(tmp_path / 'out'), ['stablehlo'])
  assert not (tmp_path / 'out/model.onnx').exists()
  assert 'The files are compared with the network on noise: its data are not here.' in capsys.readouterr().out


def test_what_cannot_be_exported_is_told(run, tmp_path, monkeypatch):
  with pytest.raises(UserError, match="--format=onx; did you mean 'onnx'"):
    export.export_run(str(run), str(tmp_path / 'out'), ['onx'])
  with pytest.raises(UserError, match='name one or more of onnx, stablehlo, web'):
    export.export_run(str(run), str(tmp_path / 'out'), [])
  monkeypatch.setitem(sys.modules, 'jax2onnx', None)
  with pytest.raises(UserError, match=r'needs jax2onnx .*pip install "fer_jax\[export\]"'):
    export.export_run(str(run), str(tmp_path / 'out'), ['web'])
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out/mine.txt').write_text('x')
  with pytest.raises(UserError, match='is not a folder of an export: it holds other files'):
    export.export_run(str(run), str(tmp_path / 'out'), ['stablehlo'])
  with pytest.raises(UserError, match="has no map 'cams'; did you mean"):
    export.export_run(str(run), str(tmp_path / 'new'), ['stablehlo'], map='cams')
  monkeypatch.setattr(export.evaluation, 'open_split', no_data)
  monkeypatch.setattr(export.card, 'facts', lambda workdir: {})
  monkeypatch.setattr(exported, 'check', disagree)
  with pytest.raises(UserError, match='it disagrees'):
    export.export_run(str(run), str(tmp_path / 'new'), ['stablehlo'])
  assert not [path for path in tmp_path.iterdir() if path.name.startswith('new')]
