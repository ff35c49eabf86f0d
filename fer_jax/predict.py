"""Says what a run's network makes of the faces in photographs, folders of them, or a video.

    python -m fer_jax.predict --workdir=runs/pal --images=party.jpg
    python -m fer_jax.predict --workdir=runs/pal --images='photos/**/*.jpg' --out=rows.csv --page=look.html
    python -m fer_jax.predict --workdir=runs/pal --images=talk.mp4 --every=5 --out=rows.jsonl

There is a row for each face: file, frame and seconds of a video, box (left, top, right, bottom in pixels), the
detector's score, the probability of each class, the class put first, entropy in nats, and whether to abstain; and a row
with the reason for each picture without a face, and each that cannot be read. Without --out the first rows are printed.
"""

from typing import Any

from absl import flags

from fer_jax import command_line
from fer_jax.errors import UserError


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string('workdir', None, 'Folder of a training run.', required=True)
  flags.DEFINE_string('images', None, "A photograph, a folder of them, a video, or a pattern such as 'photos/*.jpg'.",
                      required=True)
  flags.DEFINE_string('detector', 'dlib', 'What finds the faces: dlib, or a YuNet FILE.onnx. Of pictures that are a '
                      'face each: crop takes them as prepare does, none as they are.')
  flags.DEFINE_string('out', None, 'A file for the rows, .csv or .jsonl (JSON lines), instead of the console.')
  flags.DEFINE_string('page', None, 'Also a page to look at, .html: faces, probabilities and attribution maps.')
  flags.DEFINE_integer('every', 1, 'Of a video, each so many frames.', lower_bound=1)
  flags.DEFINE_string('map', '', "Which of the maps of the run's config.explain the page shows.")
  command_line.define_start()


def main(given: Any) -> None:
  """Prints or writes the rows, and the page."""
  command_line.start(given)
  import jax

  from fer_jax.analysis import face_rows
  if jax.process_count() > 1:
    raise UserError('predict works in one process; for several, start each alone with a part of the pictures.')
  face_rows.predict(given.workdir, given.images, detector=given.detector, every=given.every, out=given.out,
                    page=given.page, map=given.map)


if __name__ == '__main__':
  command_line.run(define, main)
