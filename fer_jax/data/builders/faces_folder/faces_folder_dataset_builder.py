"""TFDS builder of folders of labelled faces: classes as their owner orders them, landmarks by dlib."""

from collections.abc import Mapping, Sequence
from typing import Any

from fer_jax.data import face
from fer_jax.data.builders.faces_folder import files
from fer_jax.data.preparing import contents
from fer_jax.data.preparing.builder import FaceBuilder
from fer_jax.data.preparing.records import Listed
from fer_jax.errors import UserError


class Builder(FaceBuilder):
  """The faces in SPLIT/CLASS/ of a folder or a zip; a variant is any name that their owner gives."""

  HOW_TO = files.HOW_TO
  TERMS = 'those of whoever made the faces, who alone knows them'
  SHAREABLE = True  # They are their owner's, who alone knows of terms: nothing here says that they are not.

  def __init__(self, *, config: Any = None, classes: Sequence[str] | None = None, **kwargs: Any):
    """Makes a builder.

    Args:
      classes: class folders in the order of the labels, FOLDER:EXPRESSION where a folder is not called by its
        expression; for preparing only.
      **kwargs: see ``FaceBuilder``.

    Raises:
      UserError: ``classes`` are none, or not those of the prepared data.
    """
    self._folders = files.read_classes(classes or ())
    super().__init__(config=config or 'default', **kwargs)

  def classes(self) -> tuple[str, ...]:
    """The classes of the prepared data; until there are such, those that were asked for."""
    asked = tuple(self._folders.values())
    if not any((self.data_path / name).exists() for name in (contents.CONTENTS, contents.INFO)):  # Written last.
      return asked
    prepared = tuple(self.contents()['classes'])
    if asked and asked != prepared:
      raise UserError(f'{self.data_path} was prepared with the classes {", ".join(prepared)}, in this order, and not '
                      f'{", ".join(asked)}. Give the other data set another --variant, or remove the folder.')
    return prepared

  def faces(self, path: str | None) -> Mapping[str, Sequence[Listed]]:
    """Lists the images of every split that there is."""
    faces = files.open_files(path)
    self.note(*files.check_classes(faces, list(self._folders)), *faces.notes)
    if others := [name for name in self.classes() if not face.canonical(name)]:
      self.note(f'No expression of this project, so the action-unit maps are empty: {", ".join(others)}. Expressions '
                f'are {", ".join(face.EXPRESSIONS)}.')
    labels = {folder: label for label, folder in enumerate(self._folders)}
    return files.listed(faces, labels, f'--classes has {", ".join(labels)}; name these as well, or take them away.')
