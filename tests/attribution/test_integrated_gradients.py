"""Integrated gradients start each of their steps at the tap: against moving the tap, and by what the loop computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.attribution.forward import Tap
from fer_jax.attribution.kinds.integrated_gradients import integrated_gradients
from fer_jax.attribution.maps import tap_map
from fer_jax.training import setup, step
from tests import faces, traces
from tests.training.test_combinations import config

KIND = {'attribution': 'integrated_gradients', 'target': 'logit_sum', 'channels': 'all'}
PRODUCTS = ('conv_general_dilated', 'dot_general')


def loops(program):
  """The scopes of the products inside every loop of a jaxpr."""
  scans = traces.equations(traces.live(program), ('scan',))
  bodies = [traces.live(scan.params['jaxpr'].jaxpr) for scan in scans]
  found = [{traces.scope(product) for product in traces.equations(body, PRODUCTS)} for body in bodies]
  return [scopes for scopes in found if scopes]


# Convolutions one after the other, in blocks, of several regions of a face, and beside a class token.
@pytest.mark.parametrize('backbone, head, above', [
    ('resnet', 'linear', {'layer4_0'}), ('resnet', 'region_attention', {'layer4_0'}),
    ('vgg', 'linear', {'features_24', 'features_26', 'features_28'}), ('vit', 'linear', {'blocks_3'}),
    ('mobilefacenet', 'linear', {'features_12', 'features_13', 'features_14', 'conv2_0'})])
def test_the_loop_is_above_the_tap(backbone, head, above):
  made = config(backbone, head, ['cross_entropy'])
  system = setup.make_system(made, faces.CLASSES, 20)
  images = jnp.zeros((4, *((6,) if head == 'region_attention' else ()), 32, 32, 3))

  def maps(variables):
    return tap_map(step.Context(system.recipe.model, variables, images, {'label': jnp.zeros(4)}, False), tap='stage3',
                   **KIND)

  loop, = loops(jax.make_jaxpr(maps)(jax.eval_shape(system.initial).variables()).jaxpr)
  assert {scope.split('/')[2] for scope in loop if '/backbone/' in scope} == above


def test_so_are_the_loops_of_a_training_step_and_of_its_gradient():
  made = faces.config(losses__pal__attribution='integrated_gradients', losses__pal__taps=('stage3',))
  found = [loop for loop in loops(faces.traced_step(made)[0]) if any('Classifier' in scope for scope in loop)]
  assert len(found) == 2 and all('Classifier/backbone/layer4_0/conv1' in loop for loop in found)
  assert not [scope for loop in found for scope in loop if '/backbone/' in scope and '/layer4_0/' not in scope]


def test_maps_are_those_of_a_tap_that_is_moved():
  made = config('resnet', 'region_attention', ['cross_entropy'])
  system = setup.make_system(made, faces.CLASSES, 20)
  variables, model = faces.drawn(jax.eval_shape(system.initial).variables()), system.recipe.model
  images = jax.random.normal(jax.random.key(0), (2, 6, 32, 32, 3))
  batch = {'label': jnp.zeros(2)}

  @jax.jit
  def both(variables):
    context = step.Context(model, variables, images, batch, False)
    x = context.outputs.taps['stage2']
    still = {name: jnp.zeros((12, *tap.shape[1:])) for name, tap in context.outputs.taps.items()}

    def moved(push):
      push = {'backbone': {**still, 'stage2': still['stage2'].at[::6].set(push)}}
      return model.apply({**variables, 'perturbations': push}, images, False).logits

    slopes = [jax.grad(lambda push: moved(push).sum())((t / 4 - 1) * x) for t in range(1, 5)]
    return tap_map(context, tap='stage2', steps=4, **KIND), x * jnp.stack(slopes).mean(axis=0)

  ours, expected = both(variables)
  assert np.abs(expected).max() > 1e-3
  np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_a_long_path_in_bfloat16_has_all_of_its_places():
  # Counted in bfloat16, which has no 257, there would be one place for 257 to 2,000.
  tap = Tap('x', jnp.ones((1, 1, 1, 1), jnp.bfloat16), None, lambda x: (x.astype(jnp.float32) ** 2).sum((1, 2)))
  value = integrated_gradients(tap, jnp.ones((1, 1)), 2000)
  np.testing.assert_allclose(value.sum(), 2001 / 2000, rtol=2e-3)  # x times the mean of 2 t x.
