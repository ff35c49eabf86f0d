"""Random parameters from the top down: which variables lie where in every backbone, and what happens to the maps."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import ran
from fer_jax.analysis import randomisation
from fer_jax.landmarks.regions import region_count
from fer_jax.models.classifier import make_classifier
from fer_jax.runtime import cluster
from fer_jax.training import setup
from fer_jax.training.state import initialiser
from tests import faces

STAGES = ['stage4', 'stage3', 'stage2', 'stage1', 'stem']

# Options of a small net of every kind, its image side, and a module that belongs to each group.
BACKBONES = {
    'resnet': ({'depth': 10, 'width': 4, 'stem': 'small'}, 16, {
        'stage4': {'layer4_0'}, 'stage3': {'layer3_0'}, 'stage1': {'layer1_0'}, 'stem': {'conv1', 'bn1'}}),
    'vgg': ({'width': 2, 'batch_norm': True}, 32, {
        'stage1': {'features_7', 'features_8', 'features_10', 'features_11'}}),
    'ir': ({'width': 4, 'embedding': True}, 16, {
        'above stage4': {'output_layer_0', 'output_layer_3', 'output_layer_4'},
        'stage2': {f'body_{i}' for i in range(3, 7)}}),
    'mobilenet_v2': ({'width': 0.25}, 32, {
        'stage1': {'features_1', 'features_2', 'features_3'}, 'stage4': {f'features_{i}' for i in range(14, 18)} | {
            'features_18_0', 'features_18_1'}}),
    'mobilefacenet': ({'width': 4}, 32, {'stage1': {'dw_conv'}, 'stem': {'conv1_0', 'conv1_1'}}),
    'mobilenet_v1': ({'width': 4}, 16, {'stem': {'conv1', 'conv1_bn'}, 'stage1': {
        f'conv_{kind}_{i}{end}' for kind in ('dw', 'pw') for i in (1, 2, 3) for end in ('', '_bn')}}),
    'efficientnet_lite0': ({}, 16, {'stem': {'_conv_stem', '_bn0'}, 'stage1': {f'_blocks_{i}' for i in range(3)},
                                    'stage4': {*(f'_blocks_{i}' for i in range(11, 16)), '_conv_head', '_bn1'}}),
    'inception_resnet_v1': ({'width': 4, 'embedding': True}, 75, {
        'above stage4': {'last_linear', 'last_bn'}, 'stage1': {'conv2d_3b', 'conv2d_4a'},
        'stage4': {'mixed_7a', 'block8', *(f'repeat_3_{i}' for i in range(5))}}),
    'vit': ({'width': 8, 'heads': 2, 'depth': 4, 'patch': 8}, 16, {
        'stem': {'cls_token', 'patch_embed', 'pos_embed'}, 'stage4': {'blocks_3', 'norm'}, 'stage3': {'blocks_2'}}),
}


def groups_of(config):
  """The groups of a config's network, as paths of leaves."""
  regions = region_count(**config.regions)
  model = make_classifier(config.model.to_dict(), len(faces.CLASSES), regions=regions)
  recipe = SimpleNamespace(model=model, image_size=config.image_size, regions=config.regions if regions > 1 else None)
  variables = jax.eval_shape(lambda: initialiser(model, config.image_size, regions)(0))
  groups = randomisation.parameter_groups(recipe, variables)
  paths = [tuple(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(variables)]
  assert sorted(leaf for leaves in groups.values() for leaf in leaves) == list(range(len(paths)))
  return {name: {paths[leaf] for leaf in leaves} for name, leaves in groups.items()}


@pytest.mark.parametrize('name', BACKBONES)
def test_every_variable_of_every_backbone_lies_between_two_taps(name):
  options, side, expected = BACKBONES[name]
  config = faces.config(image_size=side)
  with config.unlocked():
    config.model.backbone = ConfigDict({'name': name, **options})
  groups = groups_of(config)
  above = ['above stage4'] if 'above stage4' in expected else []
  assert list(groups) == ['head', *above, *STAGES]
  assert {path[1:3] for path in groups['head']} == {('head', 'fc')}
  for group, modules in expected.items():
    assert {path[2] for path in groups[group]} == modules
  for path in set().union(*groups.values()):  # Running statistics go with their parameters.
    if path[0] == 'batch_stats':
      assert any(('params', *path[1:-1]) == other[:-1] for group in groups.values() if path in group for other in group)


def test_regions_and_heads_with_statistics_have_their_groups():
  groups = groups_of(faces.shrink(ran.get_config('synthetic_faces')))
  assert list(groups) == ['head', *STAGES] and {path[2] for path in groups['head']} == {'alpha', 'beta', 'fc'}
  head = ConfigDict({'name': 'arm', 'block': 4, 'kernel': 4, 'stride': 2})
  assert ('batch_stats', 'head', 'global_mean') in groups_of(faces.config(model__head=head))['head']


def test_random_parameters_above_leave_what_is_below_as_it_was():
  system = setup.make_system(faces.config(), faces.CLASSES, 1)
  ours, others = (system.initial(seed).variables() for seed in (0, 1))
  groups = randomisation.parameter_groups(system.recipe, ours)
  images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)

  @jax.jit
  def outputs(variables):
    found = system.recipe.model.apply(variables, images, False)
    return [found.logits, *(found.taps[name] for name in STAGES)]

  before = jax.device_get(outputs(ours))
  for depth in range(len(groups) + 1):
    mixed = randomisation.randomised(ours, others, groups, depth)
    for i, (was, now) in enumerate(zip(before, jax.device_get(outputs(mixed)), strict=True)):
      same = np.array_equal(was, now)
      assert same == (i >= depth), (depth, i)
  jax.tree.map(np.testing.assert_array_equal, mixed, others)  # All of it is random in the end.


def test_the_cascade_starts_at_1_and_spares_a_map_that_does_not_see_the_head():
  config = faces.config()
  with config.unlocked():
    config.explain = ConfigDict({name: config.explain[name] for name in ('predicted', 'attention')})
    config.explain.early = {'attribution': 'activation', 'target': 'predicted', 'tap': 'stage1'}
  system = setup.make_system(config, faces.CLASSES, 1)
  mesh = cluster.make_mesh(jax.devices()[:1])
  variables = cluster.replicate(system.initial().variables(), mesh)
  trained = SimpleNamespace(system=system, variables=variables, protocol=setup.make_protocol(config))
  source = faces.source(6)
  rows = {row['random']: row for row in randomisation.cascade(trained, source, 3, mesh)}
  assert list(rows) == ['nothing', 'another face', 'head', *STAGES]
  assert [row['depth'] for row in rows.values()] == [0, 0, 1, 2, 3, 4, 5, 6]
  for found in rows['nothing']['maps'].values():
    assert found['pearson'] == pytest.approx(1) and found['spearman'] == pytest.approx(1)
  for name in ('attention', 'early'):
    assert rows['head']['maps'][name]['pearson'] == pytest.approx(1)
  for depth in ('stage4', 'stage3', 'stage2'):
    assert rows[depth]['maps']['early']['pearson'] == pytest.approx(1)
  for depth in ('stage1', 'stem'):
    assert rows[depth]['maps']['early']['pearson'] < 0.99
  assert rows['head']['maps']['predicted']['pearson'] < 0.9 > rows['stage4']['maps']['attention']['pearson']
  low, high = rows['head']['maps']['predicted']['pearson_range']
  assert low < rows['head']['maps']['predicted']['pearson'] < high  # Three draws.
  one = dataclasses.replace(source, records=source.records[:1])
  assert 'another face' not in [row['random'] for row in randomisation.cascade(trained, one, 3, mesh)]
