"""What a config's model says besides its parts: the dtype of the computation, and whose statistics it normalises by."""

import jax
import jax.numpy as jnp
import pytest

from fer_jax.errors import UserError
from fer_jax.models.classifier import computing_dtype, make_classifier

OPTIONS = {'backbone': {'name': 'resnet', 'depth': 10, 'width': 4}, 'head': {'name': 'linear'}, 'dtype': 'auto',
           'region_norm': 'separate', 'norm_scope': 'global'}
ARM = {'name': 'arm', 'block': 4, 'kernel': 4, 'stride': 2}


@pytest.mark.parametrize('backend, dtype', [('cpu', 'float32'), ('gpu', 'bfloat16'), ('tpu', 'bfloat16')])
def test_auto_is_half_precision_on_accelerators(backend, dtype, monkeypatch):
  assert computing_dtype('auto', backend) == dtype
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  assert computing_dtype('auto') == dtype
  model = make_classifier(OPTIONS, 7)
  images = jax.ShapeDtypeStruct((2, 16, 16, 3), 'float32')
  variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
  kept = {kind: variables[kind] for kind in ('params', 'batch_stats')}
  assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype('float32')}
  outputs = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), kept, images)
  assert outputs.taps['stage4'].dtype == jnp.dtype(dtype)
  assert outputs.logits.dtype == outputs.embedding.dtype == jnp.dtype('float32')


@pytest.mark.parametrize('backend', ['cpu', 'gpu'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_what_is_asked_for_stays(dtype, backend, monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  assert computing_dtype(dtype) == dtype
  assert make_classifier(OPTIONS | {'dtype': dtype}, 7).backbone.dtype == jnp.dtype(dtype)


def test_an_unknown_dtype_is_named_with_the_nearest():
  with pytest.raises(UserError, match="model.dtype='bfloat' is unknown; did you mean 'bfloat16'.*auto, bfloat16"):
    make_classifier(OPTIONS | {'dtype': 'bfloat'}, 7)


@pytest.mark.parametrize('scope, devices', [('device', 8), ('global', 1)])
def test_the_scope_of_statistics_reaches_backbone_and_head(scope, devices):
  model = make_classifier(OPTIONS | {'norm_scope': scope, 'head': ARM}, 7, devices=8)
  assert model.backbone.devices == model.head.devices == devices


def test_an_unknown_scope_is_named():
  with pytest.raises(UserError, match="model.norm_scope='local': choose 'global' or 'device'"):
    make_classifier(OPTIONS | {'norm_scope': 'local'}, 7)
