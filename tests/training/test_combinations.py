"""Every backbone with every head and every loss that is meant to go with it; what does not go together is named."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import ran
from fer_jax import registry
from fer_jax.errors import UserError
from fer_jax.losses.alignment import PRESETS
from fer_jax.training import setup
from fer_jax.training.state import initial_state
from tests import faces
from tests.backbones import shorten

# Every backbone, small.
BACKBONES = {
    'resnet': {'depth': 10, 'width': 4, 'stem': 'small'},
    'resnet large_maps': {'depth': 10, 'width': 4, 'stem': 'standard', 'large_maps': True},
    'vgg': {'width': 4},
    'vit': {'size': 'tiny', 'patch': 8, 'depth': 4, 'width': 16, 'heads': 2},
    'mobilenet_v2': {'width': 0.1},
    'mobilefacenet': {'width': 8},
    'ir': {'width': 4},
    'mobilenet_v1': {'width': 8},
    'efficientnet_lite0': {},
    'inception_resnet_v1': {'width': 8},
    'dlib_resnet': {'width': 8},
}
SIDES = {'inception_resnet_v1': 75, 'dlib_resnet': 103}  # Of the images, where 32 pixels are too small.
HEADS = {
    'linear': {},
    'wildcat': {},
    'arm': {'block': 4, 'kernel': 4, 'stride': 2},
    'region_attention': {},
    'embedding': {'dim': 3},
}
LOSSES = {
    'cross_entropy': {'loss': 'cross_entropy', 'mask': 'labelled'},
    'pal': {'loss': 'alignment', 'mask': 'landmarks', **PRESETS['pal'], 'taps': ('stage3',)},
    'au_cues': {'loss': 'alignment', 'mask': 'action_units', **PRESETS['au_cues'], 'taps': ('stem', 'stage4')},
    'region_bias': {'loss': 'region_bias', 'mask': 'all', 'margin': 0.1},
    'triplet': {'loss': 'triplet', 'mask': 'triplets'},
    'distil_logits': {'loss': 'distillation', 'mask': 'all', 'match': 'logits'},
    'distil_embedding': {'loss': 'distillation', 'mask': 'all', 'match': 'embedding'},
}

# What is not meant to combine: what to ask for, and what the error says. CAM needs one weight per class and channel,
# rollout a transformer's attention, the region-biased loss and RAN's head several regions, the other heads one image.
REFUSED = {
    'region_bias without regions': ('resnet', 'linear', ['region_bias'], {}, 'needs region weights'),
    'RAN without regions': ('resnet', 'region_attention', ['cross_entropy'], {'regions.scheme': 'none'},
                            'wants several regions'),
    'linear with regions': ('resnet', 'linear', ['cross_entropy'], {'regions.scheme': 'fixed5'}, 'as one image'),
    'ARM with regions': ('resnet', 'arm', ['cross_entropy'], {'regions.scheme': 'fixed5'}, 'as one image'),
    'CAM on ARM': ('resnet', 'arm', ['pal'], {'losses.pal.attribution': 'cam'}, "needs the head 'linear'"),
    'CAM on RAN': ('resnet', 'region_attention', ['pal'], {'losses.pal.attribution': 'cam'}, "needs the head 'linear'"),
    'distillation without a teacher': ('resnet', 'linear', ['distil_logits'], {}, 'needs a teacher'),
    'rollout on a CNN': ('resnet', 'linear', ['pal'], {'losses.pal.attribution': 'rollout'}, 'of a transformer'),
}


def config(backbone, head, losses, changes=()):
  """One config of these parts; every one of ``losses`` is a term."""
  made = ran.get_config('synthetic_faces')
  with made.unlocked():
    made.regions.scheme = 'fixed5' if head == 'region_attention' else 'none'
    made.image_size, made.data.size, made.batch_size = SIDES.get(backbone, 32), 16, 4
    made.model.backbone = ConfigDict({'name': backbone.split()[0], **BACKBONES[backbone]})
    made.model.head = ConfigDict({'name': head, **HEADS[head]})
    made.losses = ConfigDict({name: {'weight': 1.0, **LOSSES[name]} for name in losses})
    if 'triplet' in losses:  # One labelled face and one triplet.
      made.sources.triplets = ConfigDict({'split': 'train', 'parts': 1, 'supervision': 'triplets'})
    made.explain, made.ema, made.variables = ConfigDict(), 0.0, 'trained'
    for key, value in dict(changes).items():
      made.update_from_flattened_dict({key: value})
  return made


def test_the_lists_are_complete():
  assert {name.split()[0] for name in BACKBONES} == set(registry.names('models.backbones'))
  assert set(HEADS) == set(registry.names('models.heads'))
  assert {options['loss'] for options in LOSSES.values()} == set(registry.names('losses'))


# Every backbone takes a step with one head, every head with one backbone, and there every loss that may go with both.
STEPS = {'resnet large_maps': ('linear',), 'vgg': ('wildcat',), 'vit': ('embedding',), 'mobilenet_v2': ('arm',),
         'mobilefacenet': ('region_attention',), 'ir': ('linear',), 'resnet': tuple(HEADS), 'mobilenet_v1': ('linear',),
         'efficientnet_lite0': ('linear',), 'inception_resnet_v1': ('linear',), 'dlib_resnet': ('linear',)}


def every_loss(backbone, head):
  """A teacher is a second network to compile, and its losses see outputs alone, which all heads have: one for all."""
  return [name for name in LOSSES if (name != 'region_bias' or head == 'region_attention') and (
      not name.startswith('distil') or (backbone, head) == ('resnet', 'embedding'))]


@pytest.mark.parametrize('backbone, head', [(backbone, head) for backbone, heads in STEPS.items() for head in heads])
def test_takes_a_step_with_every_loss_at_once(backbone, head, monkeypatch):
  shorten(monkeypatch)
  made = config(backbone, head, every_loss(backbone, head))
  teacher = faces.teacher(made)
  system = setup.make_system(made, faces.CLASSES, 20, teacher)
  variables = faces.drawn(jax.eval_shape(system.initial).variables())
  start = initial_state(jax.device_put(variables), system.recipe.optimizer, averaged=False)
  state, meter = faces.steps(made, count=1, system=system, start=start, frozen=teacher and teacher.variables)
  assert all(np.isfinite(value) for value in meter.values()) and meter['steps'] == 1
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
  assert any((a != b).any() for a, b in zip(jax.tree.leaves(start.params), jax.tree.leaves(state.params), strict=True))


# What a head gets has one form whatever the backbone, and a loss sees a backbone through its taps: the rest is traced.
@pytest.mark.parametrize('backbone, head', [
    (backbone, head) for backbone, heads in STEPS.items() for head in HEADS if head not in heads])
def test_fits_every_other_head(backbone, head):
  made = config(backbone, head, ['cross_entropy'])
  system = setup.make_system(made, faces.CLASSES, 20)
  regions = (6,) if head == 'region_attention' else ()
  outputs = jax.eval_shape(functools.partial(system.recipe.model.apply, train=False),
                           jax.eval_shape(system.initial).variables(),
                           jnp.zeros((2, *regions, made.image_size, made.image_size, 3)))
  assert outputs.logits.shape == (2, len(faces.CLASSES)) and set(outputs.taps) >= {'stage3', 'stage4'}


@pytest.mark.parametrize('backbone, head, losses, changes, message', REFUSED.values(), ids=REFUSED)
def test_what_does_not_combine_says_so(backbone, head, losses, changes, message):
  made = config(backbone, head, losses, changes)
  with pytest.raises(UserError, match=message):
    setup.make_system(made, faces.CLASSES, 20)
    faces.steps(made, count=1)
