"""Forms of convolutions for the CPU against XLA's: values, gradients, gradients of gradients, and where they are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from fer_jax import registry
from fer_jax.models import convnet, convolution
from fer_jax.runtime import cluster, scaling
from tests import traces

SAME = ((1, 1), (1, 1))
NONE = ((0, 0), (0, 0))

# Form; sides of x, its channels, reach of the kernel, filters, stride, padding, groups.
FORMS = [
    ('depthwise', (6, 5), 8, 3, 8, 1, SAME, 8),
    ('depthwise', (6, 5), 8, 3, 8, 2, SAME, 8),
    ('depthwise', (7, 6), 8, 3, 8, 2, 'SAME', 8),
    ('depthwise', (5, 4), 8, 3, 8, 2, 'VALID', 8),
    ('depthwise', (5, 4), 8, 3, 8, 1, ((0, 2), (1, 0)), 8),
    ('depthwise', (1, 2), 8, 3, 8, 1, SAME, 8),
    ('depthwise', (6, 7), 4, 5, 4, 1, ((2, 2), (2, 2)), 4),
    ('depthwise', (6, 7), 4, 5, 4, 2, 'SAME', 4),
    ('weighted_sum', (3, 4), 8, (3, 4), 8, 1, NONE, 8),
    ('weighted_sum', (7, 7), 4, 7, 4, 1, 'VALID', 4),
    ('products', (1, 1), 8, 3, 6, 1, SAME, 1),
    ('products', (2, 2), 8, 3, 8, 1, SAME, 1),
    ('products', (2, 1), 8, 3, 8, 1, 'SAME', 1),
    ('products', (4, 3), 8, 3, 6, 1, SAME, 1),
    ('products', (4, 4), 8, 3, 16, 2, SAME, 1),
    ('products', (5, 4), 8, 3, 6, 2, 'SAME', 1),
    ('products', (4, 5), 8, 3, 8, 2, NONE, 1),  # dlib's last block.
    ('products', (1, 2), 8, 3, 6, 2, ((2, 2), (2, 4)), 1),  # Some of the result, and of the kernel, sees padding alone.
    ('products', (4, 4), 8, 1, 6, 2, NONE, 1),
    ('products', (2, 1), 8, 1, 6, 1, ((0, 1), (1, 0)), 1),
    ('pointwise', (5, 4), 8, 1, 6, 1, NONE, 1),
    ('pointwise', (9, 12), 8, 1, 16, 2, 'SAME', 1),
]


def call(form, sides, channels, reach, filters, stride, padding, groups):
  """x and kernel, and a function of them that convolves as flax does, by ``convolve`` or another."""
  rng = np.random.default_rng(0)
  reach = reach if isinstance(reach, tuple) else (reach, reach)
  x = rng.normal(size=(4, *sides, channels))
  kernel = rng.normal(size=(*reach, channels // groups, filters))

  def apply(x, kernel, convolve=convolution.convolve):
    numbers = lax.conv_dimension_numbers(x.shape, kernel.shape, ('NHWC', 'HWIO', 'NHWC'))
    return convolve(x, kernel, (stride, stride), padding, lhs_dilation=(1, 1), rhs_dilation=(1, 1),
                    dimension_numbers=numbers, feature_group_count=groups, precision=None)

  return x, kernel, apply


def up_to_second_order(apply, x, kernel):
  """What ``apply`` gives, gradients of a function of it, and gradients of a function of these."""
  first = jax.grad(lambda x, kernel: jnp.sum(jnp.sin(apply(x, kernel))), (0, 1))
  second = jax.grad(lambda *at: sum(jnp.sum(g**3) for g in first(*at)), (0, 1))
  return apply(x, kernel), first(x, kernel), second(x, kernel)


@pytest.mark.parametrize('case', FORMS, ids=lambda case: '-'.join(map(str, case)))
def test_forms_equal_xlas_up_to_the_second_order(case):
  x, kernel, apply = call(*case)
  with jax.enable_x64(True):
    steps = jax.make_jaxpr(lambda *at: jax.vjp(apply, *at)[1](apply(*at)))(x, kernel)
    primitives = {equation.primitive.name for equation in traces.equations(steps.jaxpr)}
    assert ('conv_general_dilated' in primitives) == (case[0] == 'pointwise') and len(primitives) > 1
    both = [functools.partial(up_to_second_order, functools.partial(apply, convolve=convolve))
            for convolve in (convolution.convolve, lax.conv_general_dilated)]
    ours, theirs = jax.jit(lambda *at: [one(*at) for one in both])(x, kernel)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
      assert a.dtype == b.dtype == np.float64
      np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11 * np.abs(b).max())
      assert np.abs(b).max() > 0.1


@pytest.mark.parametrize('dtype, tolerance', [('float32', 1e-5), ('bfloat16', 1e-2)])
@pytest.mark.parametrize('case', [FORMS[0], FORMS[8], FORMS[13], FORMS[20]], ids=lambda case: case[0])
def test_values_and_gradients_in_lower_precision(case, dtype, tolerance):
  x, kernel, apply = call(*case)
  weights = np.random.default_rng(1).normal(size=jax.eval_shape(apply, x, kernel).shape)
  x, kernel, weights = (jnp.asarray(a, dtype) for a in (x, kernel, weights))

  @functools.partial(jax.jit, static_argnums=0)
  def all_of(convolve, *at):
    value, pull = jax.vjp(lambda *at: apply(*at, convolve=convolve), *at)
    return value, *pull(weights.astype(value.dtype))

  ours = all_of(convolution.convolve, x, kernel)
  theirs = all_of(lax.conv_general_dilated, *(a.astype('float32') for a in (x, kernel)))
  for a, b in zip(ours, theirs, strict=True):
    assert a.dtype == dtype
    np.testing.assert_allclose(np.float32(a), b, atol=tolerance * np.abs(b).max())


def steps_of(apply, *at):
  return str(jax.make_jaxpr(apply)(*at))


@pytest.mark.parametrize('case', FORMS, ids=lambda case: '-'.join(map(str, case)))
def test_other_platforms_run_xlas(case, monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  x, kernel, apply = call(*case)
  assert steps_of(apply, x, kernel) == steps_of(functools.partial(apply, convolve=lax.conv_general_dilated), x, kernel)


@pytest.mark.parametrize('x, kernel, strides, padding, options', [
    ((2, 5, 5, 4), (3, 3, 4, 4), (1, 1), SAME, {}),  # A map too large.
    ((2, 12, 12, 3), (7, 7, 3, 4), (2, 2), NONE, {}),
    ((2, 4, 4, 3), (5, 5, 3, 4), (1, 1), 'SAME', {}),
    ((2, 6, 6, 4), (1, 1, 4, 4), (1, 1), SAME, {}),
    ((2, 6, 6, 4), (3, 3, 2, 4), (1, 1), SAME, {'feature_group_count': 2}),  # Neither dense nor depthwise.
    ((2, 6, 6, 4), (3, 3, 1, 8), (1, 1), SAME, {'feature_group_count': 4}),
    ((2, 6, 6, 4), (7, 7, 1, 4), (1, 1), ((3, 3), (3, 3)), {'feature_group_count': 4}),
    ((2, 6, 6, 4), (3, 3, 1, 4), (1, 1), SAME, {'feature_group_count': 4, 'rhs_dilation': (2, 2)}),
    ((2, 6, 6, 4), (3, 3, 1, 4), (1, 1), SAME, {'feature_group_count': 4, 'lhs_dilation': (1, 2)}),
    ((2, 6, 6, 4), (3, 3, 1, 4), (1, 1), ((1, -1), (0, 0)), {'feature_group_count': 4}),
    ((2, 4, 6, 6), (4, 1, 3, 3), (1, 1), SAME, {'feature_group_count': 4, 'dimension_numbers': None}),
    ((2, 6, 4), (3, 1, 4), (1,), ((1, 1),), {'feature_group_count': 4, 'dimension_numbers': ('NWC', 'WIO', 'NWC')}),
    ((4, 6, 6, 4), (3, 3, 4, 4), (1, 1), SAME, {'batch_group_count': 2}),
], ids=str)
def test_all_else_is_xlas(x, kernel, strides, padding, options):
  x, kernel = (jax.ShapeDtypeStruct(shape, 'float32') for shape in (x, kernel))
  options = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'), **options}
  both = [steps_of(lambda *at, one=one: one(*at, strides, padding, **options), x, kernel)
          for one in (convolution.convolve, lax.conv_general_dilated)]
  assert both[0] == both[1] and 'conv_general_dilated' in both[0]


# Where the rows of a batch are.


@pytest.mark.parametrize('case', [FORMS[0], FORMS[8], FORMS[14], FORMS[20]], ids=lambda case: case[0])
def test_a_batch_over_devices_takes_no_more_than_the_kernels_gradient_from_one_to_another(case):
  x, kernel, apply = call(*case)
  x, kernel = (jnp.asarray(np.concatenate([x, -x]), 'float32'), jnp.asarray(kernel, 'float32'))
  gradients = lambda kernel, x: jax.grad(lambda *at: jnp.sum(jnp.sin(apply(*at))), (0, 1))(x, kernel)
  expected = jax.jit(gradients)(kernel, x)
  mesh, rows, all_rows = cluster.make_mesh(), PartitionSpec('data'), PartitionSpec()
  assert mesh.size == 8
  placed = cluster.replicate(kernel, mesh), cluster.place({'x': np.asarray(x)}, mesh)['x']
  sharded = jax.jit(gradients, out_shardings=(placed[1].sharding, placed[0].sharding))

  def mapped(kernel, x):
    of_x, of_kernel = gradients(kernel, x)
    return of_x, lax.psum(of_kernel, 'data')

  mapped = jax.jit(jax.shard_map(mapped, mesh=mesh, in_specs=(all_rows, rows), out_specs=(rows, all_rows),
                                 check_vma=False))
  for one in (sharded, mapped):
    compiled = one.lower(*placed).compile()
    assert scaling.collectives(compiled.as_text()) == {'all-reduce': scaling.Total(1, kernel.nbytes)}
    for a, b in zip(compiled(*placed), expected, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('case', [FORMS[0], FORMS[8], FORMS[14], FORMS[20]], ids=lambda case: case[0])
def test_vmap(case):
  x, kernel, apply = call(*case)
  of_kernel = jax.grad(lambda kernel, x: jnp.sum(jnp.sin(apply(x, kernel))))
  x, kernel = jnp.stack([x, 2 * x]).astype('float32'), jnp.stack([kernel, -kernel]).astype('float32')
  together, alone = jax.jit(lambda *at: (jax.vmap(of_kernel)(*at), jnp.stack([*map(of_kernel, *at)])))(kernel, x)
  np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


# Networks.


def make(name, size, **options):
  """A backbone, its variables and images, as shapes."""
  net = registry.find('models.backbones', name)(**options)
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  return net, jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), images), images


@pytest.mark.parametrize('name, size', [
    ('resnet', 64), ('vgg', 32), ('mobilenet_v2', 32), ('mobilefacenet', 32), ('ir', 32), ('dlib_resnet', 103)])
def test_every_convolution_of_a_backbone_goes_through(name, size, monkeypatch):
  kernels = []
  monkeypatch.setattr(convnet, 'convolve', lambda x, kernel, *rest, **options: kernels.append(kernel.shape)
                      or lax.conv_general_dilated(x, kernel, *rest, **options))
  _, variables, _ = make(name, size)
  leaves = jax.tree_util.tree_leaves_with_path(variables['params'])
  assert sorted(kernels) == sorted(leaf.shape for path, leaf in leaves if path[-1].key == 'kernel' and leaf.ndim == 4)


@pytest.mark.parametrize('name, size, options, depthwise', [
    ('mobilefacenet', 112, {'embedding': True}, 17), ('mobilenet_v2', 64, {}, 17), ('resnet', 64, {}, 0)])
def test_no_slow_convolution_is_left(name, size, options, depthwise, monkeypatch):
  net, variables, images = make(name, size, **options)

  def found(backend):
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    steps = jax.make_jaxpr(lambda variables, x: net.apply(variables, x, train=False))(variables, images)
    return list(traces.equations(steps.jaxpr, ('conv_general_dilated',)))

  grouped = lambda equation: equation.params['feature_group_count'] > 1
  small = lambda equation: (max(equation.outvars[0].aval.shape[1:3]) <= convolution.SMALL
                            and max(equation.invars[0].aval.shape[1:3]) <= convolution.SMALL + 1)
  assert not any(grouped(one) or small(one) for one in found('cpu'))
  assert sum(map(grouped, found('gpu'))) == depthwise and any(map(small, found('gpu')))
