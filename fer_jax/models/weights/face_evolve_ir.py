"""IR-50, 100 and 152 of face.evoLVe, trained to tell faces apart: where POSTER and APViT start."""

from typing import Any

from fer_jax.errors import UserError
from fer_jax.models.backbones.ir import UNITS
from fer_jax.models.weights._family import Family, Tensors


def _ir(tensors: Tensors) -> dict[str, Any]:
  units = sum(name.startswith('body.') and name.endswith('.res_layer.1.weight') for name in tensors)
  depth = [depth for depth, theirs in UNITS.items() if sum(theirs) == units]
  if not depth:
    known = ', '.join(f'{depth} ({sum(theirs)})' for depth, theirs in UNITS.items())
    raise UserError(f"is an IR net of {units} units, and the backbone 'ir' has depth (units) {known}.")
  return {'name': 'ir', 'depth': depth[0], 'width': tensors['input_layer.0.weight'].shape[0]}


FACE_EVOLVE_IR = Family(
    title='IR (face.evoLVe)',
    marks=('input_layer.0.weight', 'input_layer.2.weight', 'body.0.res_layer.1.weight'),
    backbone=_ir,
    origin='github.com/ZhaoJ9014/face.evoLVe, backbone_ir50_ms1m_epoch120.pth and others',
    licence='MIT (the repository); MS-Celeb-1M was withdrawn by its publisher: for research only',
    training_data='MS-Celeb-1M, identities of faces; the file of Asian faces on those',
    mean=(0.5,) * 3, std=(0.5,) * 3, size=112,
    recognise=lambda tensors, prefix: 'output_layer.3.weight' in tensors,
    beside=r'output_layer\.')
