"""The page that runs an exported network: in a headless Chromium on drawn faces, against OpenCV and NumPy."""

import contextlib
import os
import shutil
import tarfile
import time

import cv2
import numpy as np
import pytest

from fer_jax.data import pixels
from fer_jax.data.builders.synthetic_faces.draw import draw_face
from fer_jax.errors import UserError
from fer_jax.landmarks import align
from fer_jax.reports import web
from tests import browser, pages

SIZE, BLOCK, TEMPERATURE, MIDDLE = 48, 12, 1.7, 120
CLASSES = ['neutral', 'happy & <glad>', 'sad']
ABOUT = {
    'name': 'pal, <mine>', 'classes': CLASSES, 'size': SIZE, 'channels': 1, 'alignment': 'none', 'template': None,
    'temperature': TEMPERATURE, 'threshold': None, 'map': {'name': 'predicted', 'kind': 'grad_cam'},
    'digests': {'variables': '12ab'}, 'commit': 'c0ffee', 'dataset': 'faces_folder', 'variant': 'mine',
    'protocol': 'no leak: 0 of the 9 test images were trained on, and none chose the step', 'licence': 'mine',
    'training_data': 'drawn faces', 'intended_use': 'research'}
ALIGNED = ABOUT | {'alignment': 'similarity', 'template': align.TEMPLATE.tolist(), 'channels': 3, 'threshold': 1.0,
                   'map': None, 'protocol': 'LEAKY: 3 of 9 test images were trained on'}
FACE = draw_face(np.random.default_rng(3), 'happiness', 300)
PHOTO = cv2.copyMakeBorder(FACE.image, 40, 20, 150, 90, cv2.BORDER_REFLECT)  # 540 x 360 pixels.
LANDMARKS = align.five_points(FACE.landmarks) + (150, 40)
CORNER = "document.querySelector('#stage canvas').getBoundingClientRect()"


def weights(channels):
  return np.random.default_rng(0).normal(0, .02, (channels * (SIZE // BLOCK)**2, 3)).astype(np.float32)


def answer(face):
  """What the network of ``export`` says of a face (S, S, C) uint8: probabilities (K,) and map (4, 4)."""
  cells = face.astype(np.float64).reshape(SIZE // BLOCK, BLOCK, SIZE // BLOCK, BLOCK, -1).mean((1, 3))
  logits = cells.transpose(2, 0, 1).ravel() @ weights(face.shape[2]) / TEMPERATURE
  shares = np.exp(logits - logits.max())
  return shares / shares.sum(), cells.mean(-1) - MIDDLE


def export(path, channels):
  """Writes an exported network with the names of the contract, and values that NumPy can tell."""
  onnx = pytest.importorskip('onnx')
  make, kind, cells = onnx.helper, onnx.TensorProto, SIZE // BLOCK
  nodes = [
      make.make_node('Cast', ['images'], ['real'], to=kind.FLOAT),
      make.make_node('Transpose', ['real'], ['planes'], perm=[0, 3, 1, 2]),
      make.make_node('AveragePool', ['planes'], ['cells'], kernel_shape=[BLOCK, BLOCK], strides=[BLOCK, BLOCK]),
      make.make_node('Flatten', ['cells'], ['embedding']),
      make.make_node('MatMul', ['embedding', 'weights'], ['logits']),
      make.make_node('Div', ['logits', 'temperature'], ['cool']),
      make.make_node('Softmax', ['cool'], ['probabilities']),
      make.make_node('ReduceMean', ['cells', 'axis'], ['grey'], keepdims=0),
      make.make_node('Sub', ['grey', 'middle'], ['map'])]
  constants = {'weights': weights(channels), 'temperature': np.float32(TEMPERATURE), 'axis': np.int64([1]),
               'middle': np.float32(MIDDLE)}
  shapes = {'probabilities': ['N', 3], 'logits': ['N', 3], 'embedding': ['N', channels * cells**2],
            'map': ['N', cells, cells]}
  graph = make.make_graph(
      nodes, 'network', [make.make_tensor_value_info('images', kind.UINT8, ['N', SIZE, SIZE, channels])],
      [make.make_tensor_value_info(name, kind.FLOAT, shape) for name, shape in shapes.items()],
      [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()])
  onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid('', 18)], ir_version=10), path)


@pytest.fixture(scope='module')
def chromium():
  with browser.opened('--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream') as page:
    yield page


@pytest.fixture(scope='module')
def folders(chromium, tmp_path_factory):
  """Two exports with their pages, of a grey network and of one of aligned faces; and pictures."""
  out, aligned = tmp_path_factory.mktemp('grey'), tmp_path_factory.mktemp('aligned')
  if not shutil.which('npm'):
    pytest.skip('no npm here')
  export(out / 'model.onnx', 1)
  export(aligned / 'model.onnx', 3)
  try:
    web.write(out, ABOUT)
  except UserError as error:
    if 'could not fetch' not in str(error):
      raise
    pytest.skip(str(error))
  (aligned / 'web').mkdir()
  for name in ('onnxruntime.js', 'ort-wasm-simd-threaded.wasm'):  # What is there is not fetched again.
    os.link(out / 'web' / name, aligned / 'web' / name)
  with pytest.MonkeyPatch.context() as without:
    without.setenv('PATH', '')
    web.write(aligned, ALIGNED)
  cv2.imwrite(str(out / 'photo.png'), PHOTO[..., ::-1])
  (out / 'words.png').write_text('no picture')
  return out, aligned


@contextlib.contextmanager
def opened(page, folder):
  """The page of an export, served, with its network loaded; it complains of nothing and asks nobody else."""
  page.requests.clear()
  page.complaints.clear()
  with browser.served(folder / 'web') as (address, asked):
    page.open(address)
    page.until(lambda: page.text('status') == 'Ready. Choose a photo.')
    yield address
    assert not page.complaints
    assert {'/', '/model.onnx', '/onnxruntime.js', '/ort-wasm-simd-threaded.wasm'} <= set(asked)
    assert all(one.startswith((f'{address}/', 'data:,', 'blob:')) for one in page.requests), page.requests


def shown(page):
  """The face that the network was given, as the page shows it: (S, S, 3) uint8."""
  values = page.value("""(canvas => {
    const copy = new OffscreenCanvas(48, 48).getContext('2d');  // Chromium warns where one is read again and again.
    copy.drawImage(canvas, 0, 0);
    return canvas.width == 48 ? [...copy.getImageData(0, 0, 48, 48).data] : [];
  })(document.getElementById('seen'))""")
  return np.uint8(values).reshape(-1, SIZE, 4)[..., :3]


def settled(page, expected, tolerance=2):
  """Waits until the page shows a face (S, S, C), to so many grey levels; checks its answer, and returns it."""
  end = time.monotonic() + 20
  difference = lambda face: np.abs(face.astype(int) - expected).max() if len(face) else 255
  while difference(face := shown(page)) > tolerance:
    assert time.monotonic() < end, f'{difference(face)} grey levels apart'
    time.sleep(.05)
  probabilities, _ = answer(face[..., :expected.shape[2]])
  rows = page.value("[...document.querySelectorAll('#answered tbody tr')].map(row => [row.title, row.innerText])")
  np.testing.assert_allclose([float(title) for title, _ in rows], probabilities, atol=1e-4)
  for (_, text), name, probability in zip(rows, CLASSES, probabilities, strict=True):
    label, share, *_ = text.split('\t')
    assert label == name and float(share.split()[0]) == pytest.approx(100 * probability, abs=.06)
  return probabilities


def box_of(page):
  """Left, top, right and bottom of the box, as the page tells them."""
  words = page.text('place').replace(',', '').split()
  wide, high, left, top = (int(words[i]) for i in (1, 3, 6, 7))
  return left, top, left + wide, top + high


def cut(box, channels=1):
  """The face in a box of the photograph, as a record would be read."""
  left, top, right, bottom = box
  square, _, _ = pixels.to_square(PHOTO[top:bottom, left:right], {}, np.zeros((68, 2)))
  return pixels.to_channels(pixels.to_size(square, SIZE), channels)


def on_screen(page, x, y):
  """A point of the photograph in pixels of the window."""
  left, top, width = page.value(f'(area => [area.left, area.top, area.width])({CORNER})')
  return left + x * width / PHOTO.shape[1], top + y * width / PHOTO.shape[1]


def test_answers_are_those_of_the_network_on_the_pixels_in_the_box(chromium, folders):
  with opened(chromium, folders[0]):
    assert chromium.text('problem') is None
    chromium.choose('file', folders[0] / 'photo.png')
    chromium.until(lambda: chromium.text('place'))
    assert box_of(chromium) == (135, 45, 405, 315), 'the middle'
    probabilities = settled(chromium, cut(box_of(chromium)))
    top, most = CLASSES[probabilities.argmax()], f'{100 * probabilities.max():.1f} %'
    assert chromium.text('verdict') == f'{top}, {most}'
    assert chromium.value("document.querySelector('tr.top th').textContent") == top
    entropy = -(probabilities * np.log(probabilities)).sum()
    assert chromium.text('doubt') == (
        f'Entropy {entropy:.2f} of at most 1.10 nats.')

    chromium.click('mapped')
    drawn, expected = shown(chromium).astype(int), answer(cut(box_of(chromium)))[1]
    for row, column in ((0, 0), (0, 3), (3, 0), (3, 3)):  # The corners of the map are those of the face.
      red, _, blue = drawn[-(row > 0), -(column > 0)]
      assert (red > blue) == (expected[row, column] > 0)
    assert 'evidence against' in chromium.text('key')


def test_the_box_follows_mouse_and_keyboard_and_stays_on_the_picture(chromium, folders):
  with opened(chromium, folders[0]):
    chromium.choose('file', folders[0] / 'photo.png')
    chromium.until(lambda: chromium.text('place'))
    point = lambda x, y: on_screen(chromium, x, y)
    chromium.drag(point(10, 20), point(110, 60))  # Outside: a new box, not square here.
    box = box_of(chromium)
    np.testing.assert_allclose(box, (10, 20, 110, 60), atol=2)
    settled(chromium, cut(box))
    chromium.drag(point(60, 40), point(90, 60))  # Inside: moves.
    np.testing.assert_allclose(box_of(chromium), np.add(box, (30, 20, 30, 20)), atol=2)
    chromium.drag(point(140, 80), point(240, 100), modifiers=8)  # A corner, with Shift.
    left, top, right, bottom = box_of(chromium)
    assert right - left == bottom - top == pytest.approx(200, abs=3)
    chromium.drag(point(200, 200), point(560, 380))
    assert box_of(chromium)[2:] == (540, 360)
    before = box_of(chromium)
    chromium.press('ArrowLeft')
    chromium.press('ArrowUp')
    step = before[0] - box_of(chromium)[0]
    assert step > 0 and box_of(chromium) == (*np.subtract(before, step),)
    chromium.press('ArrowRight', modifiers=8)
    assert box_of(chromium) == (*np.subtract(before, (step, step, 0, step)),)
    chromium.click('whole')
    assert box_of(chromium) == (0, 0, 540, 360)
    settled(chromium, cut((0, 0, 540, 360)))
    for kind, *places in (('touchStart', (540, 360)), ('touchMove', (400, 300)), ('touchEnd',)):  # On the corner.
      fingers = [dict(zip('xy', point(*place), strict=True)) for place in places]
      chromium.do('Input.dispatchTouchEvent', type=kind, touchPoints=fingers)
    np.testing.assert_allclose(box_of(chromium), (0, 0, 400, 300), atol=2)


def test_points_turn_the_face_as_alignment_does_and_below_the_threshold_it_does_not_know(chromium, folders):
  with opened(chromium, folders[1]):
    chromium.choose('file', folders[0] / 'photo.png')
    chromium.until(lambda: chromium.text('place'))
    settled(chromium, cut(box_of(chromium), 3))
    centres = ("[...document.querySelectorAll('.point')].map(one => one.getBoundingClientRect())"
               '.map(one => [one.left + one.width / 2, one.top + one.height / 2])')
    seen = np.subtract(chromium.value(centres), on_screen(chromium, 0, 0)) / (on_screen(chromium, 1, 0)[0] -
                                                                              on_screen(chromium, 0, 0)[0])
    np.testing.assert_allclose(seen, align.TEMPLATE * 270 + (135, 45), atol=.5)
    for i, (x, y) in enumerate(LANDMARKS):
      chromium.drag(chromium.value(centres)[i], on_screen(chromium, x, y))
    chromium.press('ArrowDown')  # The last point, by 1 % of the shorter side.
    points = LANDMARKS + np.outer([0, 0, 0, 0, 1], [0, 4])
    settled(chromium, align.warp(PHOTO, align.similarity(points, SIZE), SIZE), tolerance=8)
    assert chromium.text('verdict') == 'I do not know'
    assert ', less than the 100.0 % that an answer needs. Entropy' in chromium.text('doubt')
    assert not chromium.value("document.querySelector('tr.top, #mapped, #key')")
    assert chromium.value("document.querySelector('.banner').innerText").startswith(ALIGNED['protocol'])


def test_pixels_are_those_of_opencv(chromium, folders):
  rng = np.random.default_rng(1)
  noise, template = rng.integers(0, 256, (61, 47, 4), np.uint8), align.TEMPLATE.tolist()
  points = align.TEMPLATE * 40 + rng.normal(5, 2, (5, 2))
  crop, _, _ = pixels.to_square(noise[10:59, 3:40, :3], {}, np.zeros((68, 2)))
  with opened(chromium, folders[0]):
    def computed(call, size, channels):
      values = chromium.value(
          f"import('./pixels.js').then(all => {{const image = {{data: {noise.ravel().tolist()}, width: 47, height: 61, "
          f'channels: 4}}; return [...all.toChannels(all.{call}, {channels})]; }})')
      return np.reshape(values, (size, size, channels))

    for size in (17, 48, 100):  # Shrinks, shrinks by 1, grows.
      cut = f'cut(image, {{left: 3, top: 10, right: 40, bottom: 59}}, {size})'
      for channels in (1, 3):
        expected = pixels.to_channels(pixels.to_size(crop, size), channels)
        np.testing.assert_allclose(computed(cut, size, channels), expected, atol=1)
      warped = align.warp(noise[..., :3], align.similarity(points, size), size)
      call = f'warp(image, all.similarity({points.tolist()}, {template}, {size}), {size})'
      np.testing.assert_allclose(computed(call, size, 3), warped, atol=5)  # OpenCV rounds places to 1/32 pixel.


def test_nothing_can_be_sent_elsewhere(chromium, folders):
  with browser.served(folders[0]) as (elsewhere, asked), opened(chromium, folders[0]) as address:
    sent = lambda to: chromium.value(f"fetch('{to}', {{mode: 'no-cors'}}).then(() => true, () => false)")
    assert sent(f'{address}/about.json')
    assert not sent(f'{elsewhere}/photo.png')
    assert not asked
    assert 'Content Security Policy' in str(chromium.complaints)
    chromium.complaints.clear()


def test_a_picture_of_the_camera_is_answered(chromium, folders):
  with opened(chromium, folders[0]):
    chromium.click('camera')
    chromium.until(lambda: chromium.text('take') and chromium.value("document.getElementById('video').videoWidth"))
    chromium.click('take')
    chromium.until(lambda: chromium.text('verdict'))
    assert chromium.value("document.getElementById('video').srcObject === null") and not chromium.text('take')
    chromium.value("navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError'); }")
    chromium.click('camera')
    trouble = lambda: chromium.text('trouble')
    assert chromium.until(trouble) == 'No picture from the camera: there is none. A photo works as well.'
    chromium.value("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    chromium.click('camera')
    chromium.until(lambda: trouble() == 'The browser gives the camera only to pages from this machine '
                                        '(http://127.0.0.1, http://localhost) or by https.')


def test_a_file_that_is_no_picture_is_told(chromium, folders):
  with opened(chromium, folders[0]):
    chromium.choose('file', folders[0] / 'words.png')
    assert chromium.until(lambda: chromium.text('trouble')) == (
        'words.png cannot be read as a picture. Choose a JPEG, PNG or WebP file.')


def test_it_fits_the_window(chromium, folders):
  for folder in folders:
    with opened(chromium, folder):
      chromium.choose('file', folders[0] / 'photo.png')
      chromium.until(lambda: chromium.text('verdict'))
      for width in (360, 1200):
        chromium.do('Emulation.setDeviceMetricsOverride', width=width, height=800, deviceScaleFactor=1, mobile=False)
        assert chromium.value('document.documentElement.scrollWidth') <= chromium.value('innerWidth') == width
        assert chromium.value("document.getElementById('seen').getBoundingClientRect().right") < width
      chromium.do('Emulation.clearDeviceMetricsOverride')


def test_opened_as_a_file_it_says_why_it_does_not_run(chromium, folders):
  chromium.open((folders[0] / 'web' / 'index.html').as_uri())
  assert 'python -m http.server' in chromium.until(lambda: chromium.text('problem'))
  chromium.complaints.clear()


def written(tmp_path, monkeypatch, about, npm=''):
  """Writes a page with a runtime of three bytes; ``npm`` is what the program of that name does."""
  monkeypatch.setattr(web, '_FILES', {'onnxruntime.js': ('dist/a.mjs', web._digest(b'abc'))})
  (tmp_path / 'model.onnx').write_bytes(b'network')
  programs = tmp_path / 'bin'
  programs.mkdir()
  if npm:
    (programs / 'npm').write_text(f'#!/bin/sh\n{npm}\n')
    (programs / 'npm').chmod(0o755)
  monkeypatch.setenv('PATH', f'{programs}:/bin:/usr/bin' if npm else str(programs))
  return pages.printed(web.write, tmp_path, about)


def pack(path, content=b'abc'):
  """Packs a file as npm does."""
  inner = path.with_name('inner')
  inner.write_bytes(content)
  with tarfile.open(path, 'w:gz') as archive:
    archive.add(inner, 'package/dist/a.mjs')


def test_the_page_tells_what_the_network_is(tmp_path, monkeypatch):
  pack(tmp_path / f'onnxruntime-web-{web.VERSION}.tgz')  # It lies beside the network: no npm is needed.
  said = written(tmp_path, monkeypatch, ABOUT | {'temperature': 1.0})
  assert said.startswith(f'Page: python -m http.server --bind 127.0.0.1 --directory {tmp_path}/web, then open http')
  text = (tmp_path / 'web' / 'index.html').read_text()
  page = pages.Page(text)
  assert len(page.ids) == len(set(page.ids))
  assert set(page.addresses) <= {'data:,', 'page.css', 'page.js'}
  assert 'pal, &lt;mine&gt;' in text and '<mine>' not in text
  assert '>probability<' in text and 'calibrated probability' not in text
  for words in ('happy &amp; &lt;glad&gt;', 'faces_folder (mine)', 'does not\n      know what anybody feels', 'AI Act'):
    assert words in text
  assert (tmp_path / 'web' / 'model.onnx').read_bytes() == b'network'
  assert page.classes.count('banner') == 1, 'that it does not run as a file'
  assert 'point' not in page.classes and 'the box is a guess' in text, 'nobody knows how the faces lay'
  assert 'unsafe-inline' not in text and "connect-src 'self'" in text


@pytest.mark.parametrize('npm, message', [
    ('', 'the page needs ONNX Runtime Web, which npm fetches, and there is no npm here: install Node.js and give the '
         "same command again, or type 'npm pack onnxruntime-web@VERSION' on a machine where that works and put"),
    ('echo no such host >&2; exit 1', 'npm could not fetch onnxruntime-web@VERSION (no such host): mend that'),
    ('exit 0', 'npm could not fetch onnxruntime-web@VERSION (exit status 0)'),
    ('echo cut > onnxruntime-web-VERSION.tgz', 'is damaged'),
    ('cp ROOT/other.tgz onnxruntime-web-VERSION.tgz', 'Find out where your npm takes packages from'),
])
def test_without_the_runtime_it_says_what_to_do(tmp_path, monkeypatch, npm, message):
  pack(tmp_path / 'other.tgz', b'xyz')
  with pytest.raises(UserError) as told:
    written(tmp_path, monkeypatch, ABOUT, npm.replace('VERSION', web.VERSION).replace('ROOT', str(tmp_path)))
  assert message.replace('VERSION', web.VERSION) in str(told.value)
  assert not (tmp_path / 'web').exists()


def test_npm_fetches_the_runtime_once(tmp_path, monkeypatch):
  pack(tmp_path / 'right.tgz')
  written(tmp_path, monkeypatch, ABOUT, f'cp {tmp_path}/right.tgz onnxruntime-web-{web.VERSION}.tgz')
  assert (tmp_path / 'web' / 'onnxruntime.js').read_bytes() == b'abc'
  (tmp_path / 'bin' / 'npm').unlink()
  web.write(tmp_path, ABOUT | {'template': ALIGNED['template']})  # A mean frame, of faces that are not aligned.
  text = (tmp_path / 'web' / 'index.html').read_text()
  assert pages.Page(text).classes.count('point') == 5 and 'which were aligned' not in text


def test_without_a_network_there_is_no_page(tmp_path):
  with pytest.raises(UserError, match='no model.onnx in .*: the page runs that file; export it with --format=onnx,web'):
    web.write(tmp_path, ABOUT)
