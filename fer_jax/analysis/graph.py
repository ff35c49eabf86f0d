"""A traced function as a converter to another format takes it: fewer equations, of kinds that it knows, same numbers.

What depends on no input is computed here and now; functions inside functions, and branches for other platforms, are
gone; nothing is added to zeros. Some equations take another form, because jax2onnx has none for them, or one that ONNX
Runtime does not run.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.interpreters import partial_eval

from fer_jax.models.pooling import window_max

_WRAPPERS = ('jit', 'pjit', 'closed_call', 'core_call', 'custom_jvp_call', 'custom_vjp_call', 'checkpoint', 'remat2')
_ELEMENTWISE = ('add', 'sub', 'mul', 'div', 'max', 'min')  # By which ``lax`` has them, too; sides of 1 stretch.


@dataclasses.dataclass(frozen=True)
class _Spread:
  """A known array of which a shape of unknown size is made: small (1, ..., c), broadcast to ``shape``."""

  small: np.ndarray
  shape: tuple[Any, ...]

  def whole(self) -> jax.Array:
    return jnp.broadcast_to(self.small, self.shape)

  def is_zero(self) -> bool:
    return not self.small.any()


def simplified(function: Callable[..., Any], *like: jax.ShapeDtypeStruct) -> Callable[..., Any]:
  """The function in another form, to be traced again by a converter.

  Args:
    function: of arrays, pure; returns a dict of arrays.
    like: its arguments; sides may be symbolic (``jax.export.symbolic_shape``).
  """
  traced, shapes = jax.make_jaxpr(function, return_shape=True)(*like)
  live = partial_eval.dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars), instantiate=True)[0]

  other = jax.make_jaxpr(lambda *arguments: list(map(_whole, _run(live, traced.consts, arguments))))(*like)
  return lambda *arguments: jax.tree.unflatten(jax.tree.structure(shapes), core.jaxpr_as_fun(other)(*arguments))


def _run(jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
  """Evaluates a jaxpr on arrays, tracers and ``_Spread``s."""
  values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))
  read = lambda each: each.val if isinstance(each, core.Literal) else values[each]
  for equation in jaxpr.eqns:
    values.update(zip(equation.outvars, _step(equation, [read(each) for each in equation.invars]), strict=True))
  return [read(each) for each in jaxpr.outvars]


def _step(equation: core.JaxprEqn, inputs: list[Any]) -> list[Any]:
  """The results of an equation."""
  name, params, to = equation.primitive.name, equation.params, equation.outvars[0].aval
  if name == 'platform_index':  # The branch of all platforms that are not named.
    return [np.int32(next(i for i, names in enumerate(params['platforms']) if names is None))]
  if name == 'name':
    return inputs
  if name == 'cond' and _known(inputs[0]):
    branch = params['branches'][int(inputs[0])]
    return _run(branch.jaxpr, branch.consts, inputs[1:])
  if name in _WRAPPERS:
    inner = params.get('call_jaxpr', params.get('jaxpr'))
    body, consts = getattr(inner, 'jaxpr', inner), getattr(inner, 'consts', ())
    if (body.debug_info.func_src_info or '').startswith('exp_neg_sq at'):  # JAX 0.12, in the gradient of erf.
      return [jnp.exp(-jnp.square(_whole(inputs[0])))]  # Without a look at the bits of x, to the last two digits.
    return _run(body, consts, inputs)
  fixed = all(_is_fixed(each.aval.shape) for each in equation.outvars)
  if all(map(_known, inputs)) and fixed and name != 'dim_as_value':
    with jax.ensure_compile_time_eval():
      return [each if jnp.issubdtype(each.dtype, jax.dtypes.extended) else np.asarray(each)
              for each in _bind(equation, inputs)]
  if name == 'broadcast_in_dim' and len(inputs) == 1 and not isinstance(inputs[0], jax.core.Tracer):
    inside = inputs[0].small if isinstance(inputs[0], _Spread) else np.asarray(inputs[0])
    sides = [1] * len(to.shape)
    for axis, side in zip(params['broadcast_dimensions'], inside.shape, strict=True):
      sides[axis] = side
    return [_Spread(inside.reshape(sides), to.shape)]
  if name in ('add', 'add_any', 'sub') and isinstance(inputs[1], _Spread) and inputs[1].is_zero():
    return inputs[:1]
  if name in ('add', 'add_any') and isinstance(inputs[0], _Spread) and inputs[0].is_zero():
    return inputs[1:]
  if name in _ELEMENTWISE and sum(isinstance(each, _Spread) for each in inputs) == 1:
    inputs = [each.small if isinstance(each, _Spread) else each for each in inputs]
    return [getattr(lax, name)(*inputs)]
  inputs = list(map(_whole, inputs))
  if form := _FORMS.get(name):
    if function := form(equation, *inputs):
      # Traced by itself, for what is in it may want another form, too.
      again = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(jnp.shape(each), each.dtype) for each in inputs))
      return _run(again.jaxpr, again.consts, inputs)
  return _bind(equation, inputs)


def _known(value: Any) -> bool:
  return not isinstance(value, jax.core.Tracer | _Spread)


def _is_fixed(shape: Sequence[Any]) -> bool:
  return all(isinstance(side, int) for side in shape)


def _whole(value: Any) -> Any:
  return value.whole() if isinstance(value, _Spread) else value


def _bind(equation: core.JaxprEqn, inputs: Sequence[Any]) -> list[Any]:
  """Computes or traces an equation as it is."""
  given = {each: value for each, value in zip(equation.invars, inputs, strict=True)
           if not isinstance(each, core.Literal)}
  alone = core.Jaxpr((), list(given), equation.outvars, [equation])
  return core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*given.values())


def _slice(equation: core.JaxprEqn, x: jax.Array, indices: Any) -> Callable[..., Any] | None:
  """A gather of one place along one axis, which is what x[:, 0] becomes where a side is not known."""
  numbers = equation.params['dimension_numbers']
  if not _known(indices) or np.shape(indices) != (1,) or numbers.collapsed_slice_dims != numbers.start_index_map:
    return None
  (axis,), place = numbers.start_index_map, int(indices[0])
  return lambda x, _: lax.squeeze(lax.slice_in_dim(x, place, place + 1, axis=int(axis)), (int(axis),))


def _window_max(equation: core.JaxprEqn, x: jax.Array) -> Callable[..., Any] | None:
  """The largest of windows of rows and columns, for ONNX Runtime, whose windows have three sides at most."""
  if x.ndim != 4:
    return None
  reach, strides, padding = (tuple(equation.params[key][i] for i in (0, 3, 1, 2)) for key in (
      'window_dimensions', 'window_strides', 'padding'))
  if reach[:2] != (1, 1) or any(map(any, padding[:2])):
    return None

  def pooled(x: jax.Array) -> jax.Array:
    rows, height, width, channels = x.shape
    planes = x.transpose(0, 3, 1, 2).reshape(rows * channels, height, width)
    planes = lax.reduce_window(planes, -jnp.inf, lax.max, (1, *reach[2:]), (1, *strides[2:]), ((0, 0), *padding[2:]))
    return planes.reshape(rows, channels, *planes.shape[1:]).transpose(0, 2, 3, 1)

  return pooled


def _window_gradient(equation: core.JaxprEqn, gradient: jax.Array, x: jax.Array) -> Callable[..., Any] | None:
  """The gradient of ``_window_max``, in the form of ``models.pooling`` for the CPU."""
  reach, strides, padding = (equation.params[key] for key in ('window_dimensions', 'window_strides', 'padding'))
  if x.ndim != 4 or (reach[0], reach[3]) != (1, 1) or any(map(any, (padding[0], padding[3]))):
    return None
  pool = lambda x: window_max(x, reach[1:3], strides[1:3], padding[1:3])
  return lambda gradient, x: jax.vjp(pool, x)[1](gradient)[0]


def _padded(equation: core.JaxprEqn, x: jax.Array, value: Any) -> Callable[..., Any] | None:
  """Padding as concatenation, where a side is not known."""
  if _is_fixed(x.shape):
    return None
  return lambda x, value: _pad(x, value, equation.params['padding_config'])


def _pad(x: jax.Array, value: Any, config: Sequence[tuple[int, int, int]]) -> jax.Array:
  """``lax.pad`` by concatenation."""
  for axis, (low, high, inside) in enumerate(config):
    filled = lambda x, axis, size: jnp.full((*x.shape[:axis], size, *x.shape[axis + 1:]), value, x.dtype)
    if inside:
      x = jnp.expand_dims(x, axis + 1)
      x = jnp.concatenate([x, filled(x, axis + 1, inside)], axis + 1)
      x = x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2:])
      high -= inside
    if min(low, high) < 0:
      x = lax.slice_in_dim(x, max(-low, 0), x.shape[axis] - max(-high, 0), axis=axis)
    ends = [[filled(x, axis, size)] if size > 0 else [] for size in (low, high)]
    x = jnp.concatenate([*ends[0], x, *ends[1]], axis) if ends[0] or ends[1] else x
  return x


def _convolution(equation: core.JaxprEqn, x: jax.Array, kernel: Any) -> Callable[..., Any] | None:
  """What a convolution's gradient is, as a convolution of the usual layout: NHWC, HWIO, without holes in x."""
  params = equation.params
  numbers, padding, holes = params['dimension_numbers'], params['padding'], params['lhs_dilation']
  usual = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
  if x.ndim != 4 or params['batch_group_count'] != 1 or (
      tuple(numbers) == usual and set(holes) == {1} and min(map(min, padding)) >= 0):
    return None

  def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    x = x.transpose([numbers.lhs_spec[i] for i in (0, 2, 3, 1)])
    kernel = kernel.transpose([numbers.rhs_spec[i] for i in (2, 3, 1, 0)])
    # Padded here where that is not positive; holes are filled before anything is cut off.
    config = [(min(low, 0) if hole == 1 else low, min(high, 0) if hole == 1 else high, hole - 1)
              for (low, high), hole in zip(padding, holes, strict=True)]
    rest = [(low - done[0], high - done[1]) for (low, high), done in zip(padding, config, strict=True)]
    y = lax.conv_general_dilated(
        _pad(x, 0, [(0, 0, 0), *config, (0, 0, 0)]), kernel, params['window_strides'], rest,
        rhs_dilation=params['rhs_dilation'], dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=params['feature_group_count'], precision=params['precision'])
    return y.transpose(np.argsort([numbers.out_spec[i] for i in (0, 2, 3, 1)]))

  return convolved


def _scattered_sum(equation: core.JaxprEqn, x: jax.Array, indices: jax.Array, updates: jax.Array
                   ) -> Callable[..., Any] | None:
  """Sums into places along the last axis, which the gradient of the largest k values is."""
  numbers, last = equation.params['dimension_numbers'], (x.ndim - 1,)
  if numbers.update_window_dims or not numbers.inserted_window_dims == numbers.scatter_dims_to_operand_dims == last:
    return None
  if numbers.operand_batching_dims != tuple(range(x.ndim - 1)) or indices.shape[-1] != 1:
    return None

  def summed(x: jax.Array, indices: jax.Array, updates: jax.Array) -> jax.Array:
    here = indices == jnp.arange(x.shape[-1], dtype=indices.dtype)  # (..., k, n).
    return x + jnp.where(here, updates[..., None], 0).sum(axis=-2)

  return summed


def _unrolled(equation: core.JaxprEqn, *_: Any) -> Callable[..., Any]:
  """A loop of a known length, one turn after the other."""
  body, length = equation.params['jaxpr'], equation.params['length']
  # Constants, what is carried, and rows, of which a turn sees one: JAX's versions count them under other names.
  apart = lambda outside, inside: sum(each.aval.ndim == aval.ndim for each, aval in zip(outside, inside, strict=True))
  before, carried = apart(equation.invars, body.in_avals), apart(equation.outvars, body.out_avals)

  def run(*inputs: jax.Array) -> list[jax.Array]:
    consts, carry, turns = inputs[:before - carried], inputs[before - carried:before], {}
    for turn in range(length)[::-1 if equation.params['reverse'] else 1]:
      results = core.jaxpr_as_fun(body)(*consts, *carry, *(each[turn] for each in inputs[before:]))
      carry, turns[turn] = results[:carried], results[carried:]
    return [*carry, *(jnp.stack(rows) for rows in zip(*(turns[turn] for turn in range(length)), strict=True))]

  return run


def _horner(*_: Any) -> Callable[..., Any]:
  """A polynomial from its coefficients, the lowest first."""
  return lambda x, *coefficients: functools.reduce(lambda total, each: total * x + each, coefficients[::-1])


# {name of a primitive: its other form, a function of the same inputs, by its equation and inputs; None: as it is}.
_FORMS: dict[str, Callable[..., Callable[..., Any] | None]] = {
    'gather': _slice, 'reduce_window_max': _window_max, 'select_and_scatter_add': _window_gradient, 'pad': _padded,
    'conv_general_dilated': _convolution, 'scatter-add': _scattered_sum, 'scan': _unrolled, 'polynomial': _horner}
