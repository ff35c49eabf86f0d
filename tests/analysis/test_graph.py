"""A function in the form for a converter: the same numbers for a batch of any size, without what converters lack."""

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fer_jax.analysis import graph
from fer_jax.models.convolution import for_any_platform
from tests import traces

RNG = np.random.default_rng(0)
KERNEL, DEPTHWISE = (RNG.normal(size=size).astype(np.float32) for size in ((3, 3, 4, 6), (3, 3, 1, 4)))


def gradient(function):
  """The gradient of the squares of a function's values."""
  return lambda x: jax.vjp(function, x)[1](2 * function(x))[0]


def convolved(kernel, stride, padding, groups=1):
  return lambda x: lax.conv_general_dilated(x, kernel, (stride, stride), padding, feature_group_count=groups,
                                            dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def pooled(padding):
  return lambda x: nn.max_pool(x, (3, 3), (2, 2), padding)


# Functions of x (N, 6, 6, 4), and what is not to be left of them.
FUNCTIONS = {
    'one of an axis': (lambda x: x[:, 3].sum(axis=2) + x[..., 2].sum(axis=2), {'gather'}),
    'windows': (pooled('SAME'), {}),
    'gradient of windows': (gradient(pooled(((1, 1), (0, 2)))), {'select_and_scatter_add', 'pad'}),
    'gradient of a convolution': (gradient(convolved(KERNEL, 1, 'SAME')), {}),
    'gradient with a stride': (gradient(convolved(KERNEL, 2, ((1, 1), (0, 1)))), {'pad'}),
    'gradient that is cut off': (gradient(convolved(KERNEL[:1, :1], 2, ((2, 1), (1, 3)))), {'pad'}),
    'gradient of each channel': (gradient(convolved(DEPTHWISE, 2, 'SAME', 4)), {'pad'}),
    'gradient of the largest': (gradient(lambda x: lax.top_k(x, 2)[0].mean(axis=-1)), {'scatter-add'}),
    'a loop': (lambda x: lax.map(lambda t: jnp.tanh(t * x).sum(axis=3), jnp.arange(3.0)).mean(axis=0), {'scan'}),
    'a loop that carries': (lambda x: lax.scan(lambda c, t: (c * t + x, (c - t).sum((1, 2, 3))), 0 * x,
                                               jnp.arange(1.0, 4.0), reverse=True)[1].T, {'scan'}),
    'gradient of erf': (gradient(lambda x: nn.gelu(x, approximate=False)), {'polynomial', 'bitcast_convert_type'}),
    'padding': (lambda x: lax.pad(x, 0.5, ((0, 0, 0), (1, -2, 1), (-1, 2, 0), (0, 1, 2))), {'pad'}),
    'a platform': (lambda x: lax.platform_dependent(x, tpu=jnp.sin, default=jnp.cos),
                   {'cond', 'platform_index', 'sin'}),
    'nothing': (lambda x: x + jnp.zeros(x.shape) - jnp.zeros((x.shape[0], 1, 1, 1)), {'add', 'sub'}),
    'constants': (lambda x: x * jnp.broadcast_to(jnp.exp(jnp.arange(4.0)), x.shape), {'exp', 'iota'})}


@pytest.fixture(scope='module')
def forms():
  """By name of ``FUNCTIONS``: its values for 3 rows in its other form, and its jaxpr for N rows."""
  rows, = jax.export.symbolic_shape('N')
  like = jax.ShapeDtypeStruct((rows, 6, 6, 4), jnp.float32)
  with for_any_platform():
    others = {name: graph.simplified(lambda x, function=function: {'y': function(x)}, like)
              for name, (function, _) in FUNCTIONS.items()}
  exported = jax.export.export(jax.jit(lambda x: {name: other(x)['y'] for name, other in others.items()}))(like)
  x = RNG.normal(size=(3, 6, 6, 4)).astype(np.float32)
  plain = jax.jit(lambda x: {name: function(x) for name, (function, _) in FUNCTIONS.items()})
  return exported.call(x), plain(x), {name: jax.make_jaxpr(other)(like).jaxpr for name, other in others.items()}


@pytest.mark.parametrize('name', FUNCTIONS)
def test_another_form_has_the_same_numbers(forms, name):
  found, expected, jaxprs = forms
  np.testing.assert_allclose(found[name], expected[name], atol=2e-6 * float(jnp.abs(expected[name]).max()))
  left = {equation.primitive.name for equation in traces.equations(jaxprs[name])}
  assert not left & set(FUNCTIONS[name][1])


def test_convolutions_have_one_layout(forms):
  for jaxpr in forms[2].values():
    for equation in traces.equations(jaxpr, ('conv_general_dilated',)):
      assert tuple(equation.params['dimension_numbers']) == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
      assert set(equation.params['lhs_dilation']) == {1} and min(map(min, equation.params['padding'])) >= 0


def test_windows_have_three_sides_at_most(forms):
  pools = list(traces.equations(forms[2]['windows'], ('reduce_window_max',)))
  assert [len(pool.params['window_dimensions']) for pool in pools] == [3]
