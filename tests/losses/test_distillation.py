"""Distillation against scipy, its gradients, and what it refuses."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from fer_jax.errors import UserError
from fer_jax.losses.distillation import distillation
from fer_jax.models.classifier import Classifier
from fer_jax.models.heads.linear import Linear
from fer_jax.training.teacher import Teacher

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(scale=3, size=(2, 6, 4)).astype(np.float32)


def outputs(logits=None, embedding=None):
  return SimpleNamespace(logits=logits, embedding=embedding)


def on_logits(student, teacher, **options):
  context = SimpleNamespace(outputs=outputs(jnp.asarray(student)), teacher=outputs(jnp.asarray(teacher)))
  return distillation(context, match='logits', **options)


def on_embeddings(student, teacher):
  context = SimpleNamespace(outputs=outputs(embedding=jnp.asarray(student)),
                            teacher=outputs(embedding=jnp.asarray(teacher)))
  return distillation(context, match='embedding')


@pytest.mark.parametrize('temperature', [1.0, 2.0, 4.0])
def test_logits_against_scipy(temperature):
  p, q = (softmax(np.float64(logits) / temperature, axis=1) for logits in (TEACHER, STUDENT))
  values = on_logits(STUDENT, TEACHER, temperature=temperature)
  assert values.shape == (6,)
  np.testing.assert_allclose(values, temperature**2 * rel_entr(p, q).sum(axis=1), rtol=1e-5)


def test_the_temperature_is_2_where_nothing_is_said():
  np.testing.assert_array_equal(on_logits(STUDENT, TEACHER), on_logits(STUDENT, TEACHER, temperature=2.0))


def test_at_temperature_1_it_is_cross_entropy_less_the_teachers_entropy():
  p = softmax(np.float64(TEACHER), axis=1)
  expected = -(p * log_softmax(np.float64(STUDENT), axis=1)).sum(axis=1) + (p * np.log(p)).sum(axis=1)
  np.testing.assert_allclose(on_logits(STUDENT, TEACHER, temperature=1.0), expected, rtol=1e-4)


def test_a_high_temperature_matches_centred_logits():
  # Hinton et al., section 2.1: at a high temperature, 1 / (2 K) times the squared distance of logits of mean 0.
  centred = [np.float64(logits) - logits.mean(axis=1, keepdims=True) for logits in (STUDENT, TEACHER)]
  expected = np.square(centred[0] - centred[1]).sum(axis=1) / (2 * 4)
  with jax.enable_x64():
    ours = on_logits(np.float64(STUDENT), np.float64(TEACHER), temperature=1e4)
  np.testing.assert_allclose(ours, expected, rtol=1e-2)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_no_loss_and_no_gradient_where_the_student_equals_its_teacher(temperature):
  shift = np.float32([[0], [1], [-2], [4], [8], [0]])  # Softmax does not see it.
  assert (on_logits(TEACHER, TEACHER, temperature=temperature) == 0).all()
  np.testing.assert_allclose(on_logits(TEACHER + shift, TEACHER, temperature=temperature), 0, atol=1e-5)
  gradient = jax.grad(lambda logits: on_logits(logits, TEACHER, temperature=temperature).sum())(jnp.asarray(TEACHER))
  np.testing.assert_allclose(gradient, 0, atol=1e-6)
  assert (on_embeddings(TEACHER, TEACHER) == 0).all()


def test_otherwise_it_is_above_zero_and_not_symmetric():
  assert (on_logits(STUDENT, TEACHER) > 0).all()
  assert (np.abs(on_logits(STUDENT, TEACHER) - on_logits(TEACHER, STUDENT)) > 1e-3).all()


def test_extreme_logits_stay_finite():
  value, gradient = jax.value_and_grad(lambda logits: on_logits(logits, [[-1e4, 1e4, 0]]).sum())(
      jnp.array([[1e4, -1e4, 0]]))
  assert np.isfinite(value) and np.isfinite(gradient).all()
  np.testing.assert_allclose(value, 4 * 1e4, rtol=1e-5)


@pytest.mark.parametrize('temperature', [1.0, 2.0, 4.0])
def test_the_students_gradient_in_closed_form(temperature):
  # T (softmax(logits / T) - softmax(teacher / T)): its size hardly depends on T, which is what the T^2 is for.
  gradient = jax.grad(lambda logits: on_logits(logits, TEACHER, temperature=temperature).sum())(jnp.asarray(STUDENT))
  q, p = (softmax(np.float64(logits) / temperature, axis=1) for logits in (STUDENT, TEACHER))
  np.testing.assert_allclose(gradient, temperature * (q - p), atol=1e-5)


class Brightness(nn.Module):
  """The smallest backbone: one number for each channel and pixel."""

  @nn.compact
  def __call__(self, x, train):
    return x * self.param('scale', nn.initializers.ones, (3,)), {}, None


@pytest.mark.parametrize('match', ['logits', 'embedding'])
def test_a_gradient_reaches_the_student_alone(match):
  model = Classifier(Brightness(), Linear(3))
  images = jnp.asarray(RNG.uniform(0, 255, (2, 2, 2, 3)), jnp.uint8)
  seen = images / 255.0
  variables = [model.init(jax.random.key(seed), seen, False) for seed in (0, 1)]
  variables[1] = jax.tree.map(lambda leaf: 1.5 * leaf, variables[1])
  frozen = Teacher(model, 2, {'mean': (0.0,) * 3, 'std': (1.0,) * 3}, None, (2, 0, 1))

  @jax.jit
  def loss(student, teacher):
    answers = frozen(teacher, {'image': images}, None, {})
    return distillation(SimpleNamespace(outputs=model.apply(student, seen, False), teacher=answers), match).sum()

  value, (student, teacher) = jax.value_and_grad(loss, (0, 1))(*variables)
  assert value > 0 and any(leaf.any() for leaf in jax.tree.leaves(student))
  assert not any(leaf.any() for leaf in jax.tree.leaves(teacher))
  assert loss(variables[0], jax.tree.map(lambda leaf: 2 * leaf, variables[1])) != value  # It does look at the teacher.


def test_embeddings_by_their_squared_distance():
  values = on_embeddings(STUDENT, TEACHER)
  np.testing.assert_allclose(values, [sum((a - b)**2) for a, b in zip(STUDENT, TEACHER, strict=True)], rtol=1e-5)
  gradient = jax.grad(lambda embedding: on_embeddings(embedding, TEACHER).sum())(jnp.asarray(STUDENT))
  np.testing.assert_allclose(gradient, 2 * (STUDENT - TEACHER), rtol=1e-5)


def test_no_teacher():
  with pytest.raises(UserError, match="needs a teacher: set config.teacher.workdir"):
    distillation(SimpleNamespace(outputs=outputs(STUDENT, STUDENT), teacher=None), match='logits')


def test_embeddings_of_different_sizes():
  with pytest.raises(UserError, match="the embedding has 4 numbers, the teacher's 3; .*match='logits'"):
    on_embeddings(STUDENT, TEACHER[:, :3])


def test_an_unknown_match():
  both = outputs(STUDENT, STUDENT)
  with pytest.raises(UserError, match="distillation.match='logit': choose 'logits' or 'embedding'"):
    distillation(SimpleNamespace(outputs=both, teacher=both), match='logit')


@pytest.mark.parametrize('temperature', [0, -1.0])
def test_a_temperature_of_zero_or_below(temperature):
  with pytest.raises(UserError, match=f'distillation.temperature={temperature}: it must be above 0'):
    on_logits(STUDENT, TEACHER, temperature=temperature)
