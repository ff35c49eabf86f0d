"""RAN's head against loops over faces and regions; a classifier of regions against its backbone on each of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.models.classifier import make_classifier
from fer_jax.models.heads.region_attention import RegionAttention

FORMS = ('code', 'paper')
B, R, C, K = 3, 5, 6, 4


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def by_hand(params, features, form, self_attention=True, relation_attention=True):
  """The published formulas, one face and one region at a time: logits, embedding, weights."""
  params = jax.tree.map(np.float64, params)

  def attention(name, vectors):
    scores = [sigmoid((vector * params[name]['kernel'][:, 0]).sum() + params[name]['bias'][0]) for vector in vectors]
    if form == 'paper':
      return scores
    return [np.exp(score) / sum(np.exp(other) for other in scores) for score in scores]

  logits, embeddings, weights = [], [], []
  for face in np.float64(features):
    vectors = [region.mean(axis=(0, 1)) for region in face]
    alpha = attention('alpha', vectors) if self_attention else [1 / len(vectors)] * len(vectors)
    whole = sum(a * vector for a, vector in zip(alpha, vectors, strict=True)) / sum(alpha)
    embedding = whole
    if relation_attention:
      pairs = [np.concatenate([vector, whole]) for vector in vectors]
      both = [a * b for a, b in zip(alpha, attention('beta', pairs), strict=True)]
      embedding = sum(w * pair for w, pair in zip(both, pairs, strict=True)) / sum(both)
    weights.append(alpha)
    embeddings.append(embedding)
    logits.append(embedding @ params['fc']['kernel'] + params['fc']['bias'])
  return np.array(logits), np.array(embeddings), np.array(weights)


def make(seed=0, classes=K, shape=(B, R, 2, 3, C), **options):
  """A head, parameters of random numbers and features."""
  rng = np.random.default_rng(seed)
  head = RegionAttention(classes, **options)
  features = rng.normal(size=shape).astype(np.float32)
  shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), features, False))
  params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)['params']
  return head, params, features


def fixed_scores(form, scores):
  """The head's weights for features that are the scores themselves: one channel, q0 = 1, b0 = 0."""
  head, params, _ = make(form=form, shape=(1, len(scores), 1, 1, 1))
  params['alpha'] = {'kernel': np.ones((1, 1), np.float32), 'bias': np.zeros(1, np.float32)}
  features = np.float32(scores).reshape(1, -1, 1, 1, 1)
  return np.asarray(head.apply({'params': params}, features, False)[2][0])


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('relation_attention', [True, False])
@pytest.mark.parametrize('self_attention', [True, False])
@pytest.mark.parametrize('form', FORMS)
def test_equals_loops(form, self_attention, relation_attention, train):
  switches = {'self_attention': self_attention, 'relation_attention': relation_attention}
  head, params, features = make(form=form, **switches)
  ours = head.apply({'params': params}, features, train)
  assert ours[1].shape == (B, 2 * C if relation_attention else C) and ours[2].shape == (B, R)
  for got, expected in zip(ours, by_hand(params, features, form, **switches), strict=True):
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('switches, names', [
    ({}, {'alpha', 'beta', 'fc'}), ({'self_attention': False}, {'beta', 'fc'}),
    ({'relation_attention': False}, {'alpha', 'fc'}),
    ({'self_attention': False, 'relation_attention': False}, {'fc'})])
def test_a_part_that_is_off_has_no_parameters(switches, names):
  assert set(make(**switches)[1]) == names


@pytest.mark.parametrize('classes, count', [(8, 9738), (7, 8713)])
def test_parameter_counts_of_the_paper(classes, count):
  _, params, _ = make(classes=classes, shape=(1, 6, 7, 7, 512))
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
  sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in params.items()}
  assert (sizes['alpha'], sizes['beta']) == (513, 1025)


@pytest.mark.parametrize('form, expected, gap', [
    ('paper', [.5000, .7311, .8808], .381), ('code', [.2686, .3384, .3930], .124)])
def test_weights_of_the_scores_0_1_2(form, expected, gap):
  weights = fixed_scores(form, [0, 1, 2])
  np.testing.assert_allclose(weights, expected, atol=5e-5)
  np.testing.assert_allclose(weights[2] - weights[0], gap, atol=5e-4)


def test_the_forms_bound_the_weights():
  code = fixed_scores('code', [50, -50, -50, -50, -50, -50])
  np.testing.assert_allclose([code[0], code[0] - code[1]], [np.e / (np.e + 5), .2226], atol=5e-5)
  np.testing.assert_allclose(code[0], .3522, atol=5e-5)
  low = fixed_scores('code', [-50, 50, 50, 50, 50, 50])[0]
  np.testing.assert_allclose(low, [1 / (1 + 5 * np.e)], rtol=1e-5)
  np.testing.assert_allclose(low, .0685, atol=5e-5)
  np.testing.assert_allclose(fixed_scores('paper', [50, -50]), [1, 0], atol=1e-6)
  np.testing.assert_allclose(code.sum(), 1, atol=1e-6)


@pytest.mark.parametrize('form, expected', [('code', 1 / 6), ('paper', 1 / (1 + np.exp(-0.7)))])
def test_equal_scores_weigh_regions_alike(form, expected):
  np.testing.assert_allclose(fixed_scores(form, [0.7] * 6), expected, rtol=1e-6)
  head, params, features = make(form=form)
  features[:] = features[:, :1]
  _, embedding, _ = head.apply({'params': params}, features, False)
  one = features[:, 0].mean((1, 2))
  np.testing.assert_allclose(embedding, np.concatenate([one, one], 1), atol=1e-5)


@pytest.mark.parametrize('form', FORMS)
def test_the_second_half_of_the_embedding_is_the_weighted_mean_of_the_regions(form):
  head, params, features = make(form=form)
  _, embedding, weights = head.apply({'params': params}, features, False)
  means = features.mean((2, 3))
  expected = np.einsum('br,brc->bc', weights, means) / np.asarray(weights).sum(1, keepdims=True)
  np.testing.assert_allclose(embedding[:, C:], expected, atol=1e-5)


@pytest.mark.parametrize('form', FORMS)
def test_permuting_crops_permutes_weights_and_changes_nothing_else(form):
  head, params, features = make(form=form)
  order = [0, 3, 1, 4, 2]
  logits, embedding, weights = head.apply({'params': params}, features, False)
  permuted = head.apply({'params': params}, features[:, order], False)
  np.testing.assert_allclose(permuted[0], logits, atol=1e-5)
  np.testing.assert_allclose(permuted[1], embedding, atol=1e-6)
  np.testing.assert_allclose(permuted[2], weights[:, np.array(order)], atol=1e-6)


def test_bfloat16_features_give_float32_outputs():
  head, params, features = make()
  assert {out.dtype for out in head.apply({'params': params}, jnp.bfloat16(features), False)} == {jnp.dtype('float32')}


def test_an_unknown_form_is_named():
  with pytest.raises(UserError, match="model.head.form='release': choose 'code' or 'paper'"):
    RegionAttention(7, form='release')


OPTIONS = {'backbone': {'name': 'resnet', 'depth': 10, 'width': 4, 'stem': 'small'},
           'head': {'name': 'region_attention'}, 'dtype': 'float32', 'region_norm': 'separate'}


@pytest.fixture(scope='module')
def classifier():
  """A model of 3 regions, variables of random numbers, images, and its evaluation outputs."""
  model = make_classifier(OPTIONS, K, regions=3)
  rng = np.random.default_rng(0)
  images = rng.normal(size=(2, 3, 16, 16, 3)).astype(np.float32)
  variables = jax.jit(lambda: model.init(jax.random.key(0), images, False))()
  draw = lambda path, leaf: (rng.uniform(0.2, 1.0, leaf.shape) - (path[-1].key == 'mean')).astype(np.float32)
  stats = jax.tree_util.tree_map_with_path(draw, variables['batch_stats'])
  variables = {'params': variables['params'], 'batch_stats': stats}
  outputs = jax.jit(model.apply, static_argnums=2)(variables, images, False)
  backbone = jax.jit(lambda images: model.backbone.apply(
      {name: values['backbone'] for name, values in variables.items()}, images, False))
  alone = [backbone(images[:, region]) for region in range(3)]
  return model, variables, images, outputs, alone


def test_a_classifier_runs_its_backbone_on_each_region_alone(classifier):
  _, variables, _, outputs, alone = classifier
  features = np.stack([features for features, _, _ in alone], 1)
  expected = by_hand(variables['params']['head'], features, 'code')
  for got, value in zip((outputs.logits, outputs.embedding, outputs.region_weights), expected, strict=True):
    np.testing.assert_allclose(got, value, rtol=1e-4, atol=1e-4)
  assert np.ptp(np.asarray(outputs.region_weights)) > 1e-3
  assert outputs.attention is None


def test_taps_are_those_of_the_full_face(classifier):
  _, _, _, outputs, alone = classifier
  assert outputs.taps.keys() == alone[0][1].keys() and len(outputs.taps) == 5
  for name, tap in outputs.taps.items():
    np.testing.assert_allclose(tap, alone[0][1][name], rtol=1e-4, atol=1e-4)
    assert np.abs(tap - alone[1][1][name]).max() > 0.01


def test_permuting_crops_changes_no_logit_of_a_classifier(classifier):
  model, variables, images, outputs, _ = classifier
  permuted = jax.jit(model.apply, static_argnums=2)(variables, images[:, [0, 2, 1]], False)
  np.testing.assert_allclose(permuted.logits, outputs.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('head, regions, message', [
    ('linear', 6, "'linear' wants the face as one image, but config.regions.scheme gives 6"),
    ('arm', 6, "'arm' wants the face as one image"),
    ('region_attention', 1, "'region_attention' wants several regions of a face.*gives 1 image")])
def test_a_head_that_does_not_go_with_the_regions_is_refused(head, regions, message):
  with pytest.raises(UserError, match=message):
    make_classifier({**OPTIONS, 'head': {'name': head}}, K, regions=regions)


def test_an_unknown_region_norm_is_named():
  with pytest.raises(UserError, match="model.region_norm='both': choose 'separate' or 'folded'"):
    make_classifier({**OPTIONS, 'region_norm': 'both'}, K, regions=3)


@pytest.mark.parametrize('region_norm, regions', [('separate', 3), ('folded', 1)])
def test_region_norm_reaches_the_backbone(region_norm, regions):
  assert make_classifier({**OPTIONS, 'region_norm': region_norm}, K, regions=3).backbone.regions == regions
