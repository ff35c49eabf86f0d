"""What a user points at, one picture after another: a photograph, those of a folder or a pattern, a video's frames."""

import glob
import os
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from cv2.utils import logging

from fer_jax.data import image_file
from fer_jax.data.preparing import files
from fer_jax.errors import UserError
from fer_jax.runtime.paths import expand

# A file is a video by its ending; every other is read as a photograph.
VIDEO_ENDINGS = ('.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv', '.flv', '.ogv', '.3gp')

# A video ends early where it lacks more than this of the seconds that it tells, and more than this share: what it tells
# may be the sound's length, or be rounded.
_SLACK_SECONDS, _SLACK = 0.25, 0.01

os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')  # FFmpeg narrates damages on standard error; here they are rows.


class Picture(NamedTuple):
  """A photograph or a frame of a video, or why there is none."""

  file: str  # Its path.
  frame: int | None = None  # Of a video, from 0.
  seconds: float | None = None  # Since the video's start, by its own time stamps.
  pixels: np.ndarray | None = None  # Upright, uint8, grey (H, W) or RGB (H, W, 3); None: not read yet, or not readable.
  reason: str = ''  # Why it cannot be read.
  encoded: bytes | None = None  # The content of a photograph's file, where it has been read.

  def opened(self) -> 'Picture':
    """With its pixels, or the reason why not; of a frame they are there already."""
    if self.pixels is not None or self.reason:
      return self
    try:
      encoded = files.File(self.file).read()
      return self._replace(pixels=image_file.decode(encoded), encoded=encoded)
    except ValueError as e:
      return self._replace(reason=str(e))


class Pictures:
  """The pictures that a path or a pattern stands for, in the order of their paths; a file is opened when it comes.

  Attributes:
    paths: of all files.
    notes: what there is to say about what was left out, in sentences.
    total: how many pictures there are; None where a video does not tell how many frames it has.
    unit: what one is called.
  """

  def __init__(self, images: str, every: int = 1):
    """Lists the files.

    Args:
      images: path of a photograph, of a video, or of a folder, in which photographs are looked for, also in its
        folders; or a pattern of such files, in which '*', '?', '[...]' and '**' stand for several. A path that is
        there is no pattern.
      every: of a video each such frame is taken, from the first.

    Raises:
      UserError: nothing is there, a folder has no image, or ``every`` was given for photographs.
    """
    path = expand(images)
    self.notes: list[str] = []
    if os.path.isdir(path):
      self.paths = self._of_folder(path)
    elif os.path.lexists(path):
      self.paths = [path]
    elif glob.has_magic(path):
      self.paths = self._of_pattern(path)
    else:
      raise UserError(f'--images={images}: there is no such file or folder.')
    self._every, videos = every, sum(map(_is_video, self.paths))
    if every > 1 and not videos:
      raise UserError(f'--every={every} counts the frames of a video, and there is none in --images={images}.')
    self.unit = 'frame' if videos == len(self.paths) else 'picture'
    told = [_told(path)[0] for path in self.paths if _is_video(path)]
    self.total = len(self.paths) - videos + sum(-(-count // every) for count in told) if all(told) else None

  def __iter__(self) -> Iterator[Picture]:
    """Yields photographs unread (``Picture.opened`` reads them), and frames with their pixels."""
    for path in self.paths:
      if _is_video(path):
        yield from _frames(path, self._every)
      else:
        yield Picture(path)

  def _of_folder(self, path: str) -> list[str]:
    tree = files.open_tree(path, '')
    self.notes += [*tree.notes, *tree.others()]
    if found := [file.path for file in tree.images().values()]:
      return found
    videos = [name for name in tree.files if _is_video(name)]
    hint = f" It has {len(videos):,} video(s): give --images='{path}/**/*{videos[0][-4:]}'." if videos else ''
    raise UserError(f"{path} has no image: looked for {', '.join(image_file.ENDINGS)} in it and in its folders.{hint}")

  def _of_pattern(self, pattern: str) -> list[str]:
    found = sorted(glob.glob(pattern, recursive=True))
    folders = [path for path in found if os.path.isdir(path)]
    if folders:
      self.notes.append(f'{pattern}: {len(folders):,} folder(s) of that name were left out, e.g. {folders[0]}')
    if len(folders) == len(found):
      raise UserError(f'--images={pattern}: no file has such a name.')
    return [path for path in found if path not in set(folders)]


def _is_video(path: str) -> bool:
  return path.lower().endswith(VIDEO_ENDINGS)


def _open(path: str) -> cv2.VideoCapture:
  level = logging.getLogLevel()
  logging.setLogLevel(logging.LOG_LEVEL_ERROR)  # It warns of what is no video.
  # Of the whole path: FFmpeg takes the beginning of 'a:b.mp4' for a protocol.
  capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
  logging.setLogLevel(level)
  return capture


def _told(path: str) -> tuple[int, float]:
  """How many frames a video says that it has, 0 where it does not, and how many a second."""
  if _unreadable(path):
    return 1, 0.0  # Its row.
  capture = _open(path)
  try:
    return _numbers(capture) if capture.isOpened() else (1, 0.0)
  finally:
    capture.release()


def _numbers(capture: cv2.VideoCapture) -> tuple[int, float]:
  count, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
  return (int(count), rate) if 0 < count < 2 ** 31 and 0 < rate < 1e6 else (0, 0.0)


def _unreadable(path: str) -> str:
  """Why no video is looked for in a file; '' where one is."""
  try:
    path.encode()  # OpenCV does not survive another name.
    if not os.path.isfile(path):
      os.stat(path)
      return 'unreadable (not a file)'
    return '' if os.path.getsize(path) else 'empty file'
  except UnicodeEncodeError:
    return 'its name is not UTF-8 text'
  except OSError as e:
    return f'unreadable ({e})'


def _frames(path: str, every: int) -> Iterator[Picture]:
  """Each so many frames of a video; where it cannot be read, or ends early, a picture that says so."""
  if reason := _unreadable(path):
    yield Picture(path, reason=reason)
    return
  capture = _open(path)
  try:
    number, seconds = 0, 0.0
    while capture.grab():  # OpenCV turns videos that say so upright.
      seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
      if number % every == 0:
        found, frame = capture.retrieve()
        yield (Picture(path, number, seconds, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)) if found else
               Picture(path, number, seconds, reason='this frame cannot be decoded'))
      number += 1
    if not number:
      yield Picture(path, reason='not a video that can be read here, or a damaged one')
      return
    count, rate = _numbers(capture)
    told = count / rate if count else 0.0
    if number < count and told - (seconds + 1 / rate) > max(_SLACK_SECONDS, _SLACK * told):
      yield Picture(path, reason=f'the video ends after {number:,} frames, {seconds:.1f} s, and says that it has '
                                 f'{told:.1f} s: it is cut off or damaged')
  finally:
    capture.release()
