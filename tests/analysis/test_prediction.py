"""The predictor: what the evaluation says of a face, from its file; faces of photographs; and what it refuses."""

import dataclasses
import functools
import io
import sys

import jax
import numpy as np
import PIL.Image
import pytest
from ml_collections import ConfigDict

import fer_jax
from fer_jax.analysis import prediction
from fer_jax.analysis.prediction import Predictor
from fer_jax.data import face
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.data.reading import splits
from fer_jax.errors import UserError
from fer_jax.landmarks import align, detect
from fer_jax.runtime import cluster, storage
from fer_jax.training import calibration, evaluation, framing, setup
from tests import faces, trees
from tests.training import test_combinations
from tests.training.test_evaluation import make_run

COUNT, SIDE = 100, 16
CLASSES = ('Happy', 'surprised', 'sad')


class FakeDetector:
  """In the place of dlib, which takes a minute for these faces: landmarks that the pixels alone decide."""

  def __call__(self, image):
    height, width = image.shape[:2]
    rng = np.random.default_rng(int(image.sum()))
    source = 'detector' if image.sum() % 4 else 'image_box'
    found = rng.normal(0, 0.02, (68, 2)) + faces_at(rng.uniform(0.9, 1.1))
    return detect.Found(np.float32(found * [width, height]), source, 0.5 if source == 'detector' else 0.0)


def faces_at(scale):
  """68 landmarks whose five points are about the template's, around the middle of a unit square."""
  points = np.full((68, 2), 0.5)
  for group, place in zip((range(36, 42), range(42, 48), [30], [48], [54]), align.TEMPLATE, strict=True):
    points[list(group)] = 0.5 + (place - 0.5) * scale
  return points


def noise(i, shape):
  return np.random.default_rng(i).integers(0, 256, shape, np.uint8)


def encoded(image, form='PNG', mode=None, **options):
  image = PIL.Image.fromarray(image)
  (image.convert(mode) if mode else image).save(out := io.BytesIO(), form, **options)
  return out.getvalue()


def mixed(i):
  """A file of any of the modes that people have."""
  exif = PIL.Image.Exif()
  exif[274] = 6
  return [lambda: encoded(noise(i, (20, 20))), lambda: encoded(noise(i, (20, 24, 3)), 'JPEG'),
          lambda: encoded(noise(i, (20, 20, 4))), lambda: encoded(noise(i, (20, 20, 3)), mode='P'),
          lambda: encoded(noise(i, (20, 26)).astype(np.uint16) * 257),
          lambda: encoded(noise(i, (18, 24, 3)), 'JPEG', exif=exif)][i % 6]()


# Kinds of data sets: the variant, and a file of theirs.
KINDS = {
    'grey': ('', lambda i: encoded(noise(i, (20, 20)))),
    'colour': ('', lambda i: encoded(noise(i, (20, 20, 3)), 'JPEG')),
    'not square': ('', lambda i: encoded(noise(i, (16 + i % 9, 22)))),
    'mixed': ('', mixed),
    'aligned': ('default-similarity24', lambda i: encoded(noise(i, (30, 26, 3)), 'JPEG')),
    'aligned, mixed': ('default-similarity24', mixed),
}


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """From a kind to (files as distributed, by name; the opened test split; what run.json says of the training split)."""

  @functools.cache
  def make(kind):
    variant, file = KINDS[kind]
    folder = tmp_path_factory.mktemp('kind')
    files = {f'test/{CLASSES[i % 3]}/{i}.png': file(i) for i in range(COUNT)}
    files |= {f'train/{CLASSES[i % 3]}/{i}.png': file(COUNT + i) for i in range(30)}
    with pytest.MonkeyPatch.context() as patched:
      patched.setattr(detect, 'detector', lambda model: FakeDetector())
      trees.build('faces_folder', folder, files, variant, classes=CLASSES)
    opened = [splits.open_split('faces_folder', variant, split, str(folder / 'data'), size=SIDE)
              for split in ('test', 'train')]
    return files, opened[0], framing.framing(opened[1], variant)

  return make


def network(config, classes, variant='', channels=1, framed=None, workdir='/no/run'):
  """A network with parameters at random, as ``setup.load`` gives it."""
  with config.unlocked():
    config.data.channels, config.data.variant = channels, variant
  system = setup.make_system(config, classes, 20)
  variables = faces.drawn(jax.eval_shape(system.initial).variables())
  record = {'classes': list(classes), 'channels': channels, 'steps': 20, 'commit': 'none',
            **(framed or {'size': SIDE, 'align_size': 0, 'frame': None})}
  return setup.Trained(storage.as_path(workdir), setup.make_protocol(config), record, system, variables, 3, list)


COMPILED = {}  # Of each system: its evaluation, and the programs of a predictor.


def predictor_of(trained, **options):
  """A predictor that shares the compiled programs of its network's others."""
  predictor = Predictor(trained, **options)
  predictor._programs = COMPILED.setdefault(id(trained.system), ({}, {}))[1]
  return predictor


def evaluated(trained, split):
  """The evaluation's logits of all faces of a split."""
  mesh, (evaluators, _) = cluster.make_mesh(jax.devices()[:1]), COMPILED.setdefault(id(trained.system), ({}, {}))
  if not evaluators:
    evaluators[0] = setup.make_evaluator(trained.system, mesh, explain=False)
  fields = ('image', 'label', 'landmarks')
  return evaluation.outputs_of(evaluators[0], trained.variables, split, 8, mesh, fields=fields)['logits']


def logits(answered):
  return np.array([one.logits for one in answered])


def agree(found, expected):
  """Another program may round otherwise."""
  assert len(found) == COUNT and np.ptp(expected, axis=0).max() > 0.03 * abs(expected).max()
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * abs(expected).max())


@pytest.fixture(scope='module')
def plain():
  """From a number of channels to a plain network; both have the same parameters, compiled once each."""
  return functools.cache(lambda channels: network(faces.config(), CLASSES, channels=channels))


@pytest.mark.parametrize('kind', KINDS)
def test_faces_of_every_kind_of_data_set_get_the_evaluations_logits(prepared, plain, kind, monkeypatch):
  monkeypatch.setattr(detect, 'detector', lambda model: FakeDetector())
  files, split, framed = prepared(kind)
  trained = plain(split.channels)
  trained = dataclasses.replace(trained, record=trained.record | framed)
  expected = evaluated(trained, split)
  stored, crops = predictor_of(trained, detector='none'), predictor_of(trained, detector='crop')
  agree(logits(stored.answered([stored.located(split.records[row]['image'])[0] for row in range(COUNT)])), expected)
  located = [crops.located(files[name])[0] for name in split.names]
  for row, one in enumerate(located):
    example = split.example(row)
    np.testing.assert_array_equal(one.image, example['image'])  # The very pixels.
    np.testing.assert_array_equal(one.fractions, example['landmarks'])
    trusted = example['landmark_source'] == face.LANDMARK_SOURCES.index('detector')
    assert (one.landmarks is not None) == trusted == (one.score == 0.5) and one.box[:2] == (0, 0)
  assert 5 < sum(one.landmarks is None for one in located) < 60
  agree(logits(crops.answered(located)), expected)
  assert framed['align_size'] == (24 if 'aligned' in kind else 0) and bool(framed['frame']) != ('aligned' in kind)


# A ResNet with the linear head is the network of the test above.
HEADS = [('resnet', 'wildcat'), ('resnet', 'arm'), ('resnet', 'embedding'), ('vit', 'linear'),
         ('resnet', 'fixed5'), ('resnet', 'landmark')]


def test_every_head_is_here():
  assert {head if head in test_combinations.HEADS else 'region_attention' for _, head in HEADS} == {
      *test_combinations.HEADS}


@pytest.mark.parametrize('backbone, head', HEADS)
def test_every_head_regions_and_a_transformer_get_the_evaluations_logits(prepared, backbone, head, monkeypatch):
  monkeypatch.setattr(detect, 'detector', lambda model: FakeDetector())
  files, split, framed = prepared('mixed')
  regions = head if head in ('fixed5', 'landmark') else 'none'
  made = test_combinations.config(backbone, 'region_attention' if regions != 'none' else head, ['cross_entropy'],
                                  {'regions.scheme': regions})
  trained = network(made, CLASSES, channels=3, framed=framed)
  predictor = predictor_of(trained, detector='crop')
  agree(logits(predictor.answered([predictor.located(files[name])[0] for name in split.names])),
        evaluated(trained, split))


def test_pixels_are_as_good_as_the_file(prepared, plain, monkeypatch):
  files, _, framed = prepared('colour')
  trained = plain(3)
  predictor = predictor_of(dataclasses.replace(trained, record=trained.record | framed), detector='none')
  for file in list(files.values())[:5]:
    pixels = np.asarray(PIL.Image.open(io.BytesIO(file)))
    np.testing.assert_array_equal(predictor.located(pixels)[0].image, predictor.located(file)[0].image)
  grey = predictor.located(noise(0, (40, 20)))[0]
  assert grey.image.shape == (SIDE, SIDE, 3) and grey.box == (0, 0, 20, 40) and np.isnan(grey.fractions).all()


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run of a 16-pixel network, with maps, that was calibrated."""
  made = faces.config()
  with made.unlocked():
    made.data.channels = 1
    made.explain.labelled = ConfigDict({**made.explain.predicted.to_dict(), 'target': 'true_class'})
  workdir = make_run(made, storage.as_path(tmp_path_factory.mktemp('run')))
  frame = {'points': align.TEMPLATE.tolist(), 'spread': 0.1, 'count': 30}
  record = storage.read_json(workdir / 'run.json')
  storage.write_json(workdir / 'run.json', record | {'channels': 1, 'size': SIDE, 'align_size': 0, 'frame': frame,
                                                     'finished': 'today'})
  storage.write_json(workdir / calibration.FILE, {'step': 1, 'temperature': 2.5, 'threshold': 0.3})
  return workdir


@pytest.fixture(scope='module')
def loaded(run):
  return fer_jax.load(run, detector='none', batch_size=8)


def test_what_is_said_of_a_face(loaded, monkeypatch):
  images = [noise(i, (SIDE, SIDE)) for i in range(11)]  # A whole batch and a part of one.
  answered = loaded(images)
  assert [len(one) for one in answered] == [1] * 11
  assert loaded.temperature == 2.5 and loaded.threshold == 0.3
  assert (loaded.classes, loaded.size, loaded.channels, loaded.batch_size) == (faces.CLASSES, SIDE, 1, 8)
  for one, in answered:
    exponents = np.exp(np.float64(one.logits) / 2.5 - (np.float64(one.logits) / 2.5).max())
    probabilities = exponents / exponents.sum()
    assert tuple(one.probabilities) == faces.CLASSES
    np.testing.assert_allclose(list(one.probabilities.values()), probabilities, rtol=1e-5)
    assert one.label == faces.CLASSES[probabilities.argmax()] and one.temperature == 2.5
    np.testing.assert_allclose(one.entropy, -(probabilities * np.log(probabilities)).sum(), rtol=1e-5)
    assert one.abstain is bool(probabilities.max() < 0.3) and one.map is None and one.score is None
    assert one.embedding.ndim == 1 and np.isfinite(one.embedding).all() and one.landmarks is None
  tops = [max(one.probabilities.values()) for one, in answered]
  monkeypatch.setattr(loaded, 'threshold', float(np.median(tops)))
  assert [one.abstain for one, in loaded(images)] == [top < np.median(tops) for top in tops]
  alone = loaded(images[9])[0][0]
  np.testing.assert_allclose(alone.logits, answered[9][0].logits, atol=1e-5)  # Padding has no part in it.
  assert loaded.answered([]) == [] and loaded([]) == []


def test_without_calibration_nothing_is_divided_and_nothing_abstained(loaded, run):
  calibrated = storage.read_json(run / calibration.FILE)
  (run / calibration.FILE).unlink()
  predictor = fer_jax.load(run, detector='none')
  storage.write_json(run / calibration.FILE, calibrated)
  assert (predictor.temperature, predictor.threshold) == (1.0, None)
  predictor._programs = {False: lambda variables, batch: {  # The logits are the same.
      **(table := loaded._programs[False](variables, batch)), 'probabilities': jax.nn.softmax(table['logits'])}}
  one = predictor(noise(0, (SIDE, SIDE)))[0][0]
  assert one.abstain is None and one.temperature == 1
  np.testing.assert_allclose(np.log(one.probabilities['fear'] / one.probabilities['anger']),
                             one.logits[faces.CLASSES.index('fear')] - one.logits[faces.CLASSES.index('anger')],
                             rtol=1e-4)


def test_maps_are_the_evaluations_of_the_predicted_class(loaded):
  images = np.array([noise(i, (SIDE, SIDE)) for i in range(8)])
  answered = loaded(list(images), map=True)
  trained = loaded._trained
  batch = {'image': images[..., None], 'label': np.array([faces.CLASSES.index(one.label) for one, in answered])}
  wanted = {'predicted': trained.system.explain['predicted'], 'labelled': trained.system.explain['labelled']}
  table = jax.jit(functools.partial(prediction.step.evaluation_step, trained.system.recipe, wanted))(
      trained.variables, batch)
  for name in wanted:  # Of the predicted class, the map of the true class is that of the predicted one.
    np.testing.assert_allclose([one.map for one, in answered], table[f'map/{name}'], atol=1e-6)
  assert prediction.explanation(trained)['target'] == 'predicted'
  assert prediction.explanation(trained, 'labelled')['target'] == 'predicted'
  assert prediction.explanation(trained, 'logit_sum') == dict(trained.system.explain['logit_sum'])


class Finder:
  """Finds one face, at known points."""

  def __init__(self, points, landmarks=None, box=(4.0, 4.0, 44.0, 44.0)):
    self.found = [detect.Detected(box, 1.5, np.float32(points), landmarks)]

  def faces(self, image):
    return self.found


def spots(points, shape):
  """An image with a bright spot at each point."""
  y, x = np.mgrid[:shape[0], :shape[1]] + 0.5
  return np.uint8(sum(255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 18) for px, py in points).clip(0, 255))


@pytest.mark.parametrize('align_size, size', [(0, 64), (112, 64), (64, 64)])
def test_a_face_of_a_photograph_is_brought_to_where_the_runs_faces_are(plain, align_size, size):
  frame = align.TEMPLATE * 0.8 + 0.05
  turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]]) * 1.7
  points = (align.TEMPLATE * 60) @ turn.T + (80, 30)
  trained = plain(1)
  facts = {'size': size, 'align_size': align_size, 'frame': None if align_size else {'points': frame.tolist()}}
  predictor = Predictor(dataclasses.replace(trained, record=trained.record | facts), detector='none')
  predictor._find = Finder(points, faces_at(1.0) * 100)
  one, = predictor.located(spots(points, (200, 260)))
  expected = (align.TEMPLATE if align_size else frame) * size
  assert one.image.shape == (size, size, 1) and one.score == 1.5 and one.box == (4, 4, 44, 44)
  y, x = np.mgrid[:size, :size] + 0.5
  for place in expected:
    near = one.image[..., 0] * (np.hypot(x - place[0], y - place[1]) < 6.0)
    found = np.array([(near * x).sum(), (near * y).sum()]) / near.sum()
    np.testing.assert_allclose(found, place, atol=0.6)
  matrix = align.similarity(points, size, expected / size)
  np.testing.assert_allclose(one.fractions, align.move(faces_at(1.0) * 100, matrix) / size, atol=1e-5)


def test_where_nobody_knows_the_frame_the_box_is_taken_and_that_is_said(plain, capsys, monkeypatch):
  trained = plain(1)
  monkeypatch.setattr(prediction, '_finder', lambda *_: Finder(align.TEMPLATE * 40, box=(20.0, 30.0, 60.0, 50.0)))
  predictor = Predictor(trained)
  assert 'nobody knows how the faces of its training lay in their images; of each' in capsys.readouterr().out
  image = spots([(40, 40)], (80, 90))
  one, = predictor.located(image)
  side = 40 * prediction.ENLARGED
  expected = align.warp(image, align.fitted((40 - side / 2, 40 - side / 2, 40 + side / 2, 40 + side / 2), SIDE), SIDE)
  np.testing.assert_allclose(one.image[..., 0], expected, atol=1)
  assert one.landmarks is None and np.isnan(one.fractions).all()


def test_three_faces_on_one_picture_and_none_on_another(run, tmp_path):
  pytest.importorskip('dlib', reason='finding faces needs dlib')
  photo, corners = np.full((240, 480, 3), 127, np.uint8), [(30, 90), (180, 20), (330, 120)]
  for i, ((x, y), name) in enumerate(zip(corners, ('neutral', 'happiness', 'anger'), strict=True)):
    photo[y:y + 96, x:x + 96] = draw_face(np.random.default_rng(i if i < 2 else 3), name, 96).image
  PIL.Image.fromarray(photo).save(tmp_path / 'three.png')
  predictor = fer_jax.load(run, batch_size=2)
  three, none, again = predictor([tmp_path / 'three.png', np.full((90, 120, 3), 200, np.uint8), photo])
  assert len(three) == len(again) == 3 and none == []
  assert sorted(round((one.box[0] + one.box[2]) / 2) // 150 for one in three) == [0, 1, 2]
  for one, other in zip(three, again, strict=True):
    np.testing.assert_array_equal(one.logits, other.logits)
    assert one.score > 0.2 and one.landmarks.shape == (68, 2)


def test_an_aligned_face_as_distributed_gives_the_stored_pixels_with_dlib_too(plain, tmp_path):
  pytest.importorskip('dlib', reason='aligning needs dlib')
  files = {f'train/{CLASSES[i]}/{i}.jpg': face.jpeg(draw_face(np.random.default_rng(i), 'neutral', 96).image).getvalue()
           for i in range(3)}
  trees.build('faces_folder', tmp_path, files, 'default-similarity48', classes=CLASSES)
  split = splits.open_split('faces_folder', 'default-similarity48', 'train', str(tmp_path / 'data'), size=SIDE)
  trained = plain(3)
  framed = framing.framing(split, 'default-similarity48')
  predictor = Predictor(dataclasses.replace(trained, record=trained.record | framed), detector='crop')
  for row, name in enumerate(split.names):
    np.testing.assert_array_equal(predictor.located(files[name])[0].image, split.example(row)['image'])


def test_what_cannot_be_is_told(run, loaded, tmp_path, monkeypatch):
  with pytest.raises(UserError, match="there is no detector 'dlip'; did you mean 'dlib'.*path of a YuNet file"):
    fer_jax.load(run, detector='dlip')
  with pytest.raises(UserError, match='no face detector at .*none.onnx'):
    fer_jax.load(run, detector=str(tmp_path / 'none.onnx'))
  (tmp_path / 'text').write_text('text')
  with pytest.raises(UserError, match='is not a YuNet face detector'):
    fer_jax.load(run, detector=str(tmp_path / 'text'))
  with pytest.raises(UserError, match="has no map 'predict'; did you mean 'predicted'"):
    fer_jax.load(run, detector='none', map='predict')
  with pytest.raises(UserError, match='batch_size=-1: give a whole number above 0'):
    fer_jax.load(run, detector='none', batch_size=-1)
  with pytest.raises(UserError, match=r'text cannot be used: not an image that can be read here\.'):
    loaded(tmp_path / 'text')
  with pytest.raises(UserError, match='nothing cannot be read: No such file'):
    loaded([str(tmp_path / 'nothing')])
  with pytest.raises(UserError, match='this picture cannot be used: empty file'):
    loaded.located(b'')
  for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8)):
    with pytest.raises(UserError, match=r'a picture is uint8 pixels, grey \(H, W\) or RGB'):
      loaded(wrong)
  monkeypatch.setattr(detect, 'detector', detect.Detector)
  monkeypatch.setitem(sys.modules, 'dlib', None)
  for detector in ('dlib', 'crop'):
    with pytest.raises(UserError, match=r'pip install "fer_jax\[landmarks\]"'):
      fer_jax.load(run, detector=detector)


def test_runs_that_have_no_answer_are_refused(run, plain, tmp_path):
  with pytest.raises(UserError, match='holds no run'):
    fer_jax.load(tmp_path)
  record = storage.read_json(run / 'run.json')
  storage.write_json(run / 'run.json', {name: value for name, value in record.items() if name != 'finished'})
  with pytest.raises(UserError, match='has not finished; give its command again'):
    fer_jax.load(run, detector='none')
  storage.write_json(run / 'run.json', record)
  trained = plain(1)
  leaky = dataclasses.replace(trained, protocol=dataclasses.replace(trained.protocol, batch_mean=True))
  for refused in (lambda: Predictor(leaky, detector='none'), lambda: prediction.explanation(leaky)):
    with pytest.raises(UserError, match="ARM with global_mean='batch': its answer to a face depends on the faces"):
      refused()
  mapless = dataclasses.replace(trained, system=dataclasses.replace(trained.system, explain={}))
  with pytest.raises(UserError, match="has no maps: its config's explain is empty"):
    prediction.explanation(mapless)
