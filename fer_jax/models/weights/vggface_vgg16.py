"""VGG-16 of VGGFace, trained to tell faces apart, converted from MatConvNet: ``vgg_face_dag.pth``.

MatConvNet's images are RGB, and so are the means.
"""

import re

from fer_jax.models.weights._family import Family, rows

_FIRST = {1: 0, 2: 5, 3: 10, 4: 17, 5: 24}  # Of the convolutions of a stage, in torchvision's ``features``.
_FULL = {'fc6': 'classifier.0', 'fc7': 'classifier.3', 'fc8': 'classifier.6'}


def _rename(name: str) -> str:
  """'conv3_2.weight' -> 'features.12.weight'."""
  layer, _, leaf = name.partition('.')
  if conv := re.fullmatch(r'conv([1-5])_([1-3])', layer):
    layer = f'features.{_FIRST[int(conv[1])] + 2 * (int(conv[2]) - 1)}'
  return f'{_FULL.get(layer, layer)}.{leaf}'


VGGFACE_VGG16 = Family(
    title='VGG-16 (VGGFace)',
    marks=('conv1_1.weight', 'conv5_3.weight'),
    backbone=lambda tensors: {'name': 'vgg', 'width': tensors['features.0.weight'].shape[0], 'batch_norm': False},
    origin='www.robots.ox.ac.uk/~albanie/pytorch-models.html, vgg_face_dag.pth',
    licence='CC BY-NC 4.0',
    training_data='VGGFace, identities of faces',
    mean=(129.186279296875 / 255, 104.76238250732422 / 255, 93.59396362304688 / 255), std=(1 / 255,) * 3, size=224,
    recognise=rows('fc8.weight', 2622),
    rename=_rename,
    beside=r'classifier\.')
