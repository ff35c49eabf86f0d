"""ResNet-50 of VGGFace2, converted from Caffe: ``resnet50_ft_weight.pkl`` and ``resnet50_scratch_weight.pkl``."""

from fer_jax.models.weights._family import Family, rows
from fer_jax.models.weights._resnet import MARKS, resnet

VGGFACE2_RESNET50 = Family(
    title='ResNet-50 (VGGFace2)',
    marks=(*MARKS, 'layer1.0.conv3.weight'),
    backbone=lambda tensors: {**resnet(tensors), 'form': 'caffe'},
    origin='github.com/cydonia999/VGGFace2-pytorch and ox-vgg/vgg_face2, resnet50_ft_weight.pkl',
    licence='MIT (the conversion); VGGFace2 is for research',
    training_data='VGGFace2, identities of faces; the ft file first on MS-Celeb-1M',
    mean=(131.0912 / 255, 103.8827 / 255, 91.4953 / 255), std=(1 / 255,) * 3, size=224,
    recognise=rows('fc.weight', 8631),
    beside=r'fc\.',
    bgr='conv1/kernel')
