"""What --images may name: photographs, folders, patterns, videos; and what cannot be read is a reason, not an end."""

import os
import struct

import cv2
import numpy as np
import PIL.Image
import pytest

from fer_jax.data.reading.pictures import Pictures
from fer_jax.errors import UserError


def video(path, frames=50, codec='MJPG', size=(64, 48), rate=25):
  """A video whose top left corner is red and whose frame n is as bright as 4 n."""
  writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, size)
  assert writer.isOpened()
  for number in range(frames):
    frame = np.full((*size[::-1], 3), 4 * number % 256, np.uint8)
    frame[:16, :24] = 0, 0, 255
    writer.write(frame)
  writer.release()
  return path


def photo(path, size=(12, 8), **options):
  """A photograph of (width, height) whose top left quarter is red, the rest blue."""
  pixels = np.zeros((*size[::-1], 3), np.uint8)
  pixels[..., 2] = 200
  pixels[:size[1] // 2, :size[0] // 2] = 200, 0, 0
  PIL.Image.fromarray(pixels).save(path, **options)
  return path


def opened(images, **options):
  return [picture.opened() for picture in Pictures(str(images), **options)]


def test_a_photograph_is_one_picture_without_frame_and_time(tmp_path):
  pictures = Pictures(str(photo(tmp_path / 'a.png')))
  assert (pictures.total, pictures.unit, pictures.notes) == (1, 'picture', [])
  unread, = pictures
  assert unread.pixels is None and not unread.reason
  picture = unread.opened()
  assert picture[:3] == (str(tmp_path / 'a.png'), None, None) and not picture.reason
  assert picture.pixels.shape == (8, 12, 3) and picture.pixels[0, 0].tolist() == [200, 0, 0]
  assert picture.opened() is picture


def test_exif_grey_and_16_bits(tmp_path):
  exif = PIL.Image.Exif()
  exif[274] = 6  # Its left edge is the top of what was seen: turned by a quarter to the right.
  photo(tmp_path / 'turned.jpg', size=(48, 32), exif=exif, quality=95)
  PIL.Image.fromarray(np.full((8, 8), 70, np.uint8)).save(tmp_path / 'grey.png')
  PIL.Image.fromarray(np.full((8, 8), 70 * 257, np.uint16)).save(tmp_path / 'deep.png')
  deep, grey, turned = opened(tmp_path)
  assert deep.pixels.shape == grey.pixels.shape == (8, 8)
  assert deep.pixels.dtype == np.uint8 and (deep.pixels == 70).all() and (grey.pixels == 70).all()
  assert turned.pixels.shape == (48, 32, 3)
  assert turned.pixels[4, -4, 0] > 150 and turned.pixels[4, 4, 0] < 60  # The red quarter is now on the right.


def test_a_folder_in_order_and_what_cannot_be_read_is_a_reason(tmp_path):
  (tmp_path / 'in').mkdir()
  photo(tmp_path / 'c.png'), photo(tmp_path / 'in/a.png'), photo(tmp_path / '.hidden.png')
  (tmp_path / 'zero.jpg').write_bytes(b'')
  (tmp_path / 'text.jpg').write_text('no photograph')
  whole = photo(tmp_path / 'cut.jpg', size=(64, 64)).read_bytes()
  (tmp_path / 'cut.jpg').write_bytes(whole[:len(whole) // 2])
  (tmp_path / 'notes.txt').write_text('')
  (tmp_path / 'link.png').symlink_to('nowhere.png')
  PIL.Image.new('L', (110, 10)).save(tmp_path / 'thin.png')
  pictures = Pictures(str(tmp_path))
  assert pictures.total == 7
  assert any('.hidden.png' in note for note in pictures.notes) and any('1 .txt' in note for note in pictures.notes)
  found = {os.path.relpath(picture.file, tmp_path): picture.reason for picture in opened(tmp_path)}
  assert list(found) == ['c.png', 'cut.jpg', 'in/a.png', 'link.png', 'text.jpg', 'thin.png', 'zero.jpg']
  assert found['c.png'] == found['in/a.png'] == ''
  assert found['zero.jpg'] == 'empty file' and found['text.jpg'] == 'not an image that can be read here'
  assert 'truncated' in found['cut.jpg'] and 'No such file' in found['link.png'] and 'too thin' in found['thin.png']


def test_a_pattern_and_a_file_that_is_called_like_one(tmp_path):
  for name in ('b.png', 'a.png', 'c[1].png', 'd.jpg', '.e.png'):
    photo(tmp_path / name)
  (tmp_path / 'folder.png').mkdir()
  photo(tmp_path / 'folder.png' / 'f.png')
  names = lambda images: [os.path.relpath(path, tmp_path) for path in Pictures(f'{tmp_path}/{images}').paths]
  assert names('*.png') == ['a.png', 'b.png', 'c[1].png']
  assert names('**/?.png') == ['a.png', 'b.png', 'folder.png/f.png']
  assert names('c[1].png') == ['c[1].png']
  note, = Pictures(f'{tmp_path}/*.png').notes
  assert '1 folder(s)' in note and note.endswith('folder.png')


@pytest.mark.parametrize('images, words', [
    ('nothing.jpg', '--images={}/nothing.jpg: there is no such file or folder.'),
    ('*.gif', '--images={}/*.gif: no file has such a name.'),
    ('in*', '--images={}/in*: no file has such a name.'),  # A folder alone.
    ('inner', '{}/inner has no image: looked for .jpg, '),
    ('videos', "It has 1 video(s): give --images='{}/videos/**/*.avi'."),
])
def test_nothing_to_read_is_one_sentence(tmp_path, images, words):
  (tmp_path / 'inner').mkdir()
  (tmp_path / 'videos').mkdir()
  video(tmp_path / 'videos' / 'a.avi', frames=1)
  with pytest.raises(UserError) as error:
    Pictures(f'{tmp_path}/{images}')
  assert words.format(tmp_path) in str(error.value) and '\n' not in str(error.value)


def test_every_is_for_videos(tmp_path):
  with pytest.raises(UserError, match='--every=2 counts the frames of a video, and there is none in --images='):
    Pictures(str(photo(tmp_path / 'a.png')), every=2)


@pytest.mark.parametrize('name, codec', [('a.avi', 'MJPG'), ('a.mp4', 'mp4v')])
def test_frames_have_numbers_and_times(tmp_path, name, codec):
  path = video(tmp_path / name, codec=codec)
  pictures = Pictures(str(path))
  assert (pictures.total, pictures.unit) == (50, 'frame')
  frames = list(pictures)
  assert [frame.frame for frame in frames] == list(range(50)) and not any(frame.reason for frame in frames)
  np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(50) / 25, atol=1e-3)
  assert frames[0].pixels.shape == (48, 64, 3)
  assert frames[0].pixels[4, 4, 0] > 200 and frames[0].pixels[4, 4, 2] < 60  # Red is red.
  np.testing.assert_allclose([frame.pixels[40, 40].mean() for frame in frames], 4 * np.arange(50), atol=6)
  seventh = Pictures(str(path), every=7)
  assert seventh.total == 8 and [frame.frame for frame in seventh] == list(range(0, 50, 7))
  assert [frame.pixels[40, 40].tolist() for frame in seventh] == [f.pixels[40, 40].tolist() for f in frames[::7]]


def test_a_video_that_lies_on_its_side_is_turned(tmp_path):
  path = video(tmp_path / 'a.mp4', frames=3, codec='mp4v')
  content = bytearray(path.read_bytes())
  matrix = content.find(b'tkhd') + 4 + 40  # Of the track's header, version 0, ISO 14496-12.
  assert struct.unpack_from('>9i', content, matrix) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
  struct.pack_into('>9i', content, matrix, 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)  # By a quarter to the right.
  path.write_bytes(content)
  first = next(iter(Pictures(str(path))))
  assert first.pixels.shape == (64, 48, 3) and first.pixels[4, -4, 0] > 200 and first.pixels[4, 4, 0] < 60


def test_a_video_that_is_cut_off_gives_what_it_has_and_says_so(tmp_path):
  path = video(tmp_path / 'a.avi')
  content = path.read_bytes()
  path.write_bytes(content[:len(content) * 6 // 10])
  *frames, last = Pictures(str(path))
  assert 20 < len(frames) < 40 and [frame.frame for frame in frames] == list(range(len(frames)))
  assert (last.frame, last.pixels) == (None, None)
  assert last.reason.startswith(f'the video ends after {len(frames)} frames, ')
  assert last.reason.endswith('and says that it has 2.0 s: it is cut off or damaged')


@pytest.mark.parametrize('content, reason', [
    (b'', 'empty file'), (b'no video' * 100, 'not a video that can be read here, or a damaged one'),
    (None, 'unreadable ([Errno 2] No such file'), ('folder', 'unreadable (not a file)')])
def test_what_is_no_video_is_a_reason(tmp_path, content, reason, capfd):
  path = tmp_path / 'a.mp4'
  if content is None:
    path.symlink_to('nowhere.mp4')
  elif content == 'folder':
    os.mkfifo(path)
  else:
    path.write_bytes(content)
  pictures = Pictures(str(path))
  only, = pictures
  assert pictures.total == 1 and only.reason.startswith(reason) and only.pixels is None
  assert capfd.readouterr() == ('', '')  # What FFmpeg thinks of it.


def test_a_name_that_is_no_text(tmp_path):
  path = os.fsdecode(os.fsencode(tmp_path) + b'/a\xff')
  video(tmp_path / 'a.avi', frames=2).rename(path + '.avi')
  photo(tmp_path / 'a.png').rename(path + '.png')
  film, picture = opened(f'{tmp_path}/a*')
  assert film.reason == 'its name is not UTF-8 text'
  assert picture.pixels.shape == (8, 12, 3)


def test_photographs_and_videos_together(tmp_path):
  photo(tmp_path / 'a.png'), video(tmp_path / 'b.avi', frames=5), photo(tmp_path / 'c.png')
  pictures = Pictures(f'{tmp_path}/*', every=2)
  assert (pictures.total, pictures.unit) == (5, 'picture')
  assert [(os.path.basename(one.file), one.frame) for one in pictures] == [
      ('a.png', None), ('b.avi', 0), ('b.avi', 2), ('b.avi', 4), ('c.png', None)]
