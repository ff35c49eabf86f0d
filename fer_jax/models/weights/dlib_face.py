"""dlib's face recognition network; its file comes with the package ``face_recognition_models``.

A file lists its layers in order of computation: ``con_0`` is the first convolution, ``affine_0`` the scale and shift
after it, and two of each make a block.
"""

import re

from fer_jax.models.weights._family import Family


def _rename(name: str) -> str:
  """'con_3.weight' -> 'block.1.conv1.weight'."""
  layer = re.fullmatch(r'(con|affine)_(\d+)\.(\w+)', name)
  if not layer:
    return name.replace('fc_0', 'fc')
  kind, number = {'con': 'conv', 'affine': 'norm'}[layer[1]], int(layer[2]) - 1
  return f'{kind}1.{layer[3]}' if number < 0 else f'block.{number // 2}.{kind}{number % 2 + 1}.{layer[3]}'


DLIB_FACE = Family(
    title="dlib's face network",
    marks=('con_28.weight', 'affine_28.weight', 'fc_0.weight'),
    backbone=lambda tensors: {'name': 'dlib_resnet', 'width': tensors['conv1.weight'].shape[0]},
    origin='dlib.net/files, dlib_face_recognition_resnet_model_v1.dat, and the package face_recognition_models',
    licence='public domain (CC0)',
    training_data='about 3 million faces of FaceScrub, VGG and the web, identities',
    mean=(122.782 / 255, 117.001 / 255, 104.298 / 255), std=(256 / 255,) * 3, size=150,
    rename=_rename,
    beside=r'fc\.|block\.13\.',
    measured=True)
