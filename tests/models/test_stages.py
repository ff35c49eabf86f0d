"""Which stage a module belongs to."""

import jax
import jax.numpy as jnp
import pytest

from fer_jax.models.classifier import make_classifier
from fer_jax.models.stages import stages


def found(name, size, **options):
  model = make_classifier({'backbone': {'name': name, **options}, 'head': {'name': 'linear'}, 'dtype': 'float32',
                           'region_norm': 'separate'}, 7)
  return stages(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))


def test_a_stage_ends_at_its_tap():
  stage_of = found('resnet', 32, depth=10, width=4, stem='small')
  assert stage_of['backbone/conv1'] == stage_of['backbone/bn1'] == 'stem'
  assert {path: stage for path, stage in stage_of.items() if path.count('/') == 1 and 'layer' in path} == {
      f'backbone/layer{i}_0': f'stage{i}' for i in (1, 2, 3, 4)}
  assert stage_of['backbone/layer3_0/conv2'] == 'stage3'
  assert not any(path.startswith('head') for path in stage_of)


def test_what_is_above_the_last_tap_has_no_stage():
  stage_of = found('ir', 16, width=4, embedding=True)
  assert stage_of['backbone/output_layer_3'] == '' and stage_of['backbone/body_23'] == 'stage4'


@pytest.mark.parametrize('name, size, options', [
    ('dlib_resnet', 103, {'width': 4}), ('mobilefacenet', 16, {'width': 4}), ('mobilenet_v2', 32, {'width': 0.1}),
    ('vgg', 32, {'width': 4}), ('vit', 16, {'width': 8, 'heads': 2, 'depth': 4})])
def test_every_backbone_has_its_stages_in_order(name, size, options):
  stage_of = found(name, size, **options)
  assert list(dict.fromkeys(stage_of.values())) == ['stem', 'stage1', 'stage2', 'stage3', 'stage4']
