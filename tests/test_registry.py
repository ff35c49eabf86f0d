"""Finding components and checking their options."""

import pytest

from fer_jax import registry
from fer_jax.errors import UserError


def test_the_module_is_the_registration():
  from fer_jax.losses.cross_entropy import cross_entropy
  assert registry.find('losses', 'cross_entropy') is cross_entropy
  assert {'linear'} <= set(registry.names('models.heads'))
  for kind in ('losses', 'models.backbones', 'models.heads', 'attribution.kinds', 'data.builders'):
    assert all(callable(registry.find(kind, name)) for name in registry.names(kind))


def test_an_unknown_name_suggests_the_nearest():
  with pytest.raises(UserError, match="unknown losses 'crossentropy'; did you mean 'cross_entropy'"):
    registry.find('losses', 'crossentropy')


def test_a_head_is_a_class_whose_fields_are_its_options():
  head = registry.find('models.heads', 'region_attention')
  assert head.__name__ == 'RegionAttention'
  with pytest.raises(UserError, match='no option .parent.*Choices: classes, form, name, relation_attention, self_att'):
    registry.check_options('it', head, {'parent': None})


def test_options_are_checked_against_the_signature():
  def component(context, size, depth=3):
    return context, size, depth

  registry.check_options('it', component, {'size': 1}, given=1)
  with pytest.raises(UserError, match="it has no option 'dept'; did you mean 'depth'"):
    registry.check_options('it', component, {'size': 1, 'dept': 2}, given=1)
  with pytest.raises(UserError, match='it needs the option.s. size'):
    registry.check_options('it', component, {}, given=1)
  with pytest.raises(UserError, match="no option 'context'"):
    registry.check_options('it', component, {'context': 1, 'size': 1}, given=1)
