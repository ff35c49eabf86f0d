"""FaceNet's Inception-ResNet-v1 trained on VGGFace2, in facenet-pytorch's form: ``20180402-114759-vggface2.pt``."""

from fer_jax.models.weights._family import Family, rows

FACENET_VGGFACE2 = Family(
    title='Inception-ResNet-v1 (FaceNet, VGGFace2)',
    marks=('conv2d_1a.conv.weight', 'repeat_1.0.branch0.conv.weight', 'block8.conv2d.weight'),
    backbone=lambda tensors: {'name': 'inception_resnet_v1', 'width': tensors['conv2d_1a.conv.weight'].shape[0]},
    origin='github.com/timesler/facenet-pytorch, 20180402-114759-vggface2.pt',
    licence='MIT (the repository); VGGFace2 is for research',
    training_data='VGGFace2, identities of faces',
    mean=(127.5 / 255,) * 3, std=(128 / 255,) * 3, size=160,
    recognise=rows('logits.weight', 8631),
    beside=r'(last_linear|last_bn|logits)\.')
