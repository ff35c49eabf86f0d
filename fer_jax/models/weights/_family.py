"""What is known of a family of pretrained networks: how its files name things, and where they come from."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Tensors = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
  """A rule from the tensors of a file to the variables of a backbone, and the facts that travel with a run.

  Names are those of the file behind its prefix, such as 'layer1.0.conv1.weight' of 'state_dict.module.layer1.0...'.

  Attributes:
    title: of the network, for tables.
    marks: names that every file of the family has. What stands before them in a file is the file's prefix.
    backbone: from the tensors, renamed and adapted, to the options of ``config.model.backbone`` that they decide,
      'name' first; it raises a UserError for a network that the backbone cannot be, as 'is a VGG with ...': what it
      says of a file.
    origin: who made the files, and where their owners have them.
    licence: of the files, in words.
    training_data: what they were trained on, in words.
    mean, std: of RGB values in [0, 1], which the network takes as (value - mean) / std.
    size: side in pixels of the images it was trained on.
    recognise: from the tensors of a file and its prefix, whether the file says that it is of the family: several share
      marks, and anybody may have trained a network of these names. If it does not, the user has to, as 'FAMILY:FILE'.
    rename: from a name of the file to one that ``pretrained``'s rule makes a path of the backbone.
    adapt: the tensors, renamed, where more than their names differs.
    beside: a regular expression of what a file holds beside the backbone, renamed: a classifier, an embedding. What the
      backbone has no layer for is dropped, and that is told.
    fit: by path of the backbone, what makes a tensor of another shape one of this shape, such as a position embedding
      of another grid.
    bgr: where the network takes BGR, the path of its first kernel, which is turned; ``mean`` and ``std`` are of RGB all
      the same.
    measured: normalisation has no statistics in the files, only a scale and a shift: they are measured on the first
      batches of a training.
  """

  title: str
  marks: Sequence[str]
  backbone: Callable[[Tensors], dict[str, Any]]
  origin: str
  licence: str
  training_data: str
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  size: int
  recognise: Callable[[Tensors, str], bool] = lambda tensors, prefix: True
  rename: Callable[[str], str] = lambda name: name
  adapt: Callable[[Tensors], Tensors] = lambda tensors: tensors
  beside: str = r'(?!)'
  fit: Mapping[str, Callable[[np.ndarray, tuple[int, ...]], np.ndarray]] = dataclasses.field(default_factory=dict)
  bgr: str = ''
  measured: bool = False


def rows(name: str, *counts: int) -> Callable[[Tensors, str], bool]:
  """Recognises files by the number of classes that their classifier's weight ``name`` tells apart."""
  return lambda tensors, prefix: name in tensors and tensors[name].shape[:1] in [(count,) for count in counts]
