"""FaceNet's Inception-ResNet-v1 trained on CASIA-WebFace: ``20180408-102900-casia-webface.pt``."""

import dataclasses

from fer_jax.models.weights._family import rows
from fer_jax.models.weights.facenet_vggface2 import FACENET_VGGFACE2

FACENET_CASIA = dataclasses.replace(
    FACENET_VGGFACE2,
    title='Inception-ResNet-v1 (FaceNet, CASIA-WebFace)',
    origin='github.com/timesler/facenet-pytorch, 20180408-102900-casia-webface.pt',
    licence='MIT (the repository); CASIA-WebFace is for research',
    training_data='CASIA-WebFace, identities of faces',
    recognise=rows('logits.weight', 10575))
