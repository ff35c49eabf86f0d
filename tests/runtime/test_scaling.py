"""What a step sends between eight devices, explained to the byte, and the model of what that would cost on more."""

import functools
import math

import jax
import pytest
from ml_collections import ConfigDict

from configs import arm, au_cues, baseline, deepfever, pal, ran
from fer_jax.analysis import speed
from fer_jax.errors import UserError
from fer_jax.losses.alignment import PRESETS
from fer_jax.runtime import cluster, scaling
from fer_jax.runtime.scaling import Hardware, Network, Step, Total
from fer_jax.training import setup
from tests import faces
from tests.processes import call

MAKERS = {'baseline': baseline, 'pal': pal, 'au_cues': au_cues, 'ran': ran, 'arm': arm}
SYSTEMS = (*MAKERS, 'student')  # A teacher has fewer terms.
FORMS = ('jit', 'pmap')

# Terms that any system may have besides its own: other options of the same losses, on the last stage.
MORE = {
    'cosine': {'loss': 'alignment', 'mask': 'any_landmarks', **PRESETS['pal'], 'similarity': 'cosine'},
    'predicted': {'loss': 'alignment', 'mask': 'action_units', **PRESETS['pal'], 'target': 'predicted'},
    'smooth': {'loss': 'cross_entropy', 'mask': 'all', 'smoothing': 0.1},
}


def make(system, **changes):
  """The system's config at a tiny size: eight devices with one face each, or one group of faces each."""
  if system in MAKERS:
    return faces.shrink(MAKERS[system].get_config('synthetic_faces'), **changes)
  return faces.shrink(deepfever.get_config(system), **{'batch_size': 64, **changes})


def count(config):
  compiled, parameters = speed.compile_step(config, cluster.make_mesh())
  return scaling.collectives(compiled.as_text()), parameters


@functools.cache
def counted(system, form, remat=False):
  return count(make(system, parallel=form, remat=remat))


def normalisations(config):
  """{path of a BatchNorm: its channels}."""
  system = setup.make_system(config, faces.CLASSES, 20)
  stats = jax.tree_util.tree_leaves_with_path(jax.eval_shape(system.initial).batch_stats)
  return {jax.tree_util.keystr(path): leaf.size for path, leaf in stats if path[-1].key == 'mean'}


def explained(system, form):
  """What the design says: all-reduces of a step, and the float32 numbers in them besides one for each parameter."""
  config = make(system)
  norms, regions = normalisations(config), 6 if system == 'ran' else 1
  shortcuts = {name: channels for name, channels in norms.items() if 'downsample' in name}
  # A BatchNorm sums values and squares forwards, and two cotangents backwards. That of a shortcut waits for no other:
  # its sums go along with those of the layer beside it. All gradients are one more.
  reductions = 2 * (len(norms) - len(shortcuts)) + 1
  numbers = 4 * regions * sum(norms.values())
  # The sum and the count of each term and of the accuracy. They have no all-reduce of their own.
  numbers += 2 * (len(config.losses) + 1)
  if form == 'pmap':
    # Biases of a shortcut's BatchNorm and of the one whose output it is added to have the same gradient: one is sent.
    numbers -= sum(shortcuts.values())
  else:
    # The gradient of a bias is one of the two sums that BatchNorm needs backwards: it is there already.
    numbers -= sum(norms.values())
  if system == 'arm':
    # The mean of the batch, forwards and backwards, 3 x 3 at this size, and its count. Under jit the gradient of
    # alpha follows from the sum that went backwards.
    reductions, numbers = reductions + 2, numbers + 2 * 9 + (form == 'pmap')
  if system == 'pal' and form == 'jit':
    # The kernel of the last layer has two gradients, from the logits and from what was pulled back through it; this
    # compiler adds them up after they are sent.
    numbers += 4 * 8 * len(faces.CLASSES)
  return reductions, numbers


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('system', SYSTEMS)
def test_all_reduces_are_those_of_the_design_and_there_is_nothing_else(system, form):
  found, parameters = counted(system, form)
  reductions, numbers = explained(system, form)
  assert found == {'all-reduce': Total(reductions, 4 * (parameters + numbers))}


@pytest.mark.parametrize('form, more', [('jit', 1), ('pmap', 2), ('jit', 3)])
def test_loss_terms_add_numbers_and_no_collective(form, more):
  config = make('pal', parallel=form)
  with config.unlocked():
    config.losses.update({name: {'weight': 0.5, **MORE[name]} for name in list(MORE)[:more]})
  (found, _), (before, _) = count(config), counted('pal', form)
  assert found.keys() == {'all-reduce'}
  assert found['all-reduce'].count == before['all-reduce'].count
  if form == 'pmap':
    assert found['all-reduce'].size == before['all-reduce'].size + 4 * 2 * more


@pytest.mark.parametrize('change, more', [
    ({'losses__pal__prior': 'shuffled'}, 0),
    # Its path is a loop, whose gradient of the head's kernel is ready before and travels alone.
    ({'losses__pal__attribution': 'integrated_gradients'}, 1)])
def test_rows_stay_on_their_device(change, more):
  (found, _), (before, _) = count(make('pal', batch_size=64, **change)), counted('pal', 'jit')
  assert found.keys() == {'all-reduce'} and found['all-reduce'].count == before['all-reduce'].count + more


def test_what_is_computed_again_is_not_summed_over_devices_again():
  assert counted('ran', 'jit', remat=True) == counted('ran', 'jit')


@pytest.mark.parametrize('form', FORMS)
def test_where_each_device_normalises_its_own_rows_a_step_reduces_twice(form):
  # The counts before the gradients, and with these what running statistics need.
  found, _ = count(make('pal', parallel=form, model__norm_scope='device'))
  assert found.keys() == {'all-reduce'} and found['all-reduce'].count == 2


def test_a_net_without_batch_norm_reduces_twice():
  # The counts before the gradients, and nothing in between that they could go along with.
  config = make('baseline')
  with config.unlocked():
    config.model.backbone = ConfigDict({'name': 'vit', 'size': 'tiny', 'patch': 8, 'depth': 4, 'width': 16, 'heads': 2})
  found, parameters = count(config)
  assert found == {'all-reduce': Total(2, 4 * (parameters + 4))}


def test_the_batch_must_split_over_the_devices():
  with pytest.raises(UserError, match='batch_size=12 does not split over 8 devices'):
    count(make('baseline', batch_size=12))


def test_the_bench_needs_no_data_and_no_eight_devices(tmp_path):
  status, out, err = call('bench', '--scaling=configs/baseline.py:ferplus', '--set=model.backbone.width=4',
                          '--set=model.backbone.depth=10', '--set=batch_size=16', data_dir=tmp_path)
  assert status == 0, err
  assert 'baseline.py:ferplus' in out and '19,836' in out and '19 ' in out and '1,024 devices' in out
  assert 'Modelled, not measured' in out and all(kind in out for kind in scaling.HARDWARE)
  assert not list(tmp_path.iterdir())
  status, _, err = call('bench', '--scaling=configs/baseline.py:ferplus', '--workers=1', data_dir=tmp_path)
  assert status == 2 and 'give one of --configs, --faces, --workers, --scaling' in err


HLO = """
  %a = (f32[3,3]{1,0}, bf16[4]{0}, /*index=2*/f32[]) all-reduce(%x, %y, %z), channel_id=1, to_apply=%add
  %b.1 = f32[5]{0:T(256)} all-reduce-start(%x), to_apply=%add
  %b.2 = f32[5]{0:T(256)} all-reduce-done(%b.1), metadata={op_name="an all-reduce(f32[9])"}
  %c = (f32[2]{0}, f32[16]{0}) all-gather-start(%x), dimensions={0}
  ROOT %d = f32[16]{0} all-gather-done(%c)
  %e = pred[7]{0} collective-permute(%x), source_target_pairs={{0,1}}
  %f = s64[2,2]{1,0} all-to-all(%x)
  %g = f32[100]{0} fusion(%all-reduce), kind=kLoop
"""


def test_collectives_are_counted_with_their_bytes():
  assert scaling.collectives(HLO) == {
      'all-reduce': Total(2, 36 + 8 + 4 + 20), 'all-gather': Total(1, 64), 'collective-permute': Total(1, 7),
      'all-to-all': Total(1, 32)}
  assert scaling.collectives('') == {}


# 100 bytes a second and half a second per hop in nodes of 4; 10 bytes and 2 seconds between them.
SWITCHED = Hardware({'float32': 20.0}, 4, Network(100.0, 0.5), Network(10.0, 2.0))


@pytest.mark.parametrize('devices, seconds', [
    (1, 0.0),
    (2, 2 * 1 / 2 * 4 + 3 * 2 * 0.5),  # 400 bytes take 4 s; three times up and down a tree of one level.
    (4, 2 * 3 / 4 * 4 + 3 * 4 * 0.5),
    (16, 2 * 3 / 4 * 4 + 3 * 4 * 0.5 + 2 * 3 / 4 * 10 + 3 * 4 * 2.0)])  # A quarter of the bytes between 4 nodes.
def test_time_of_all_reduces(devices, seconds):
  assert scaling.all_reduce_seconds(Total(3, 400), devices, SWITCHED) == pytest.approx(seconds)


def test_hops():
  assert [Network(1.0, 1.0).hops(n) for n in (2, 8, 9)] == [2, 6, 8]
  assert Network(1.0, 1.0, 2).hops(256) == pytest.approx(32)  # Two rings of 16: 8 there and 8 back, each.
  assert Network(1.0, 1.0, 3).hops(1000) == pytest.approx(30)


def test_efficiency():
  # 100 FLOPs at half of 20 a second: 10 s. 50 parameters are 200 bytes, and two other all-reduces have 200.
  step = Step(100.0, 'float32', 50, Total(3, 400))
  gradients, others = 1.5 * 2 + 4 * 0.5, 1.5 * 2 + 2 * 4 * 0.5
  assert scaling.efficiency(step, 1, SWITCHED, 0.5, True) == scaling.efficiency(step, 1, SWITCHED, 0.5, False) == 1
  assert scaling.efficiency(step, 4, SWITCHED, 0.5, False) == pytest.approx(10 / (10 + gradients + others))
  assert scaling.efficiency(step, 4, SWITCHED, 0.5, True) == pytest.approx(10 / (10 + others))  # 5 s in 6.7 s.
  # At the full peak the backward pass is 3.3 s, too short for the gradients.
  assert scaling.efficiency(step, 4, SWITCHED, 1.0, True) == pytest.approx(5 / (5 + gradients - 10 / 3 + others))


@pytest.mark.parametrize('hardware', scaling.HARDWARE)
def test_more_devices_are_never_more_efficient_and_more_rows_always(hardware):
  step = lambda rows: Step(1e9 * rows, 'bfloat16', 11_000_000, Total(40, 45_000_000))
  at = lambda devices, rows: scaling.efficiency(step(rows), devices, scaling.HARDWARE[hardware], 0.3, True)
  several = [at(devices, 32) for devices in (1, 8, 64, 256, 1024)]
  assert several == sorted(several, reverse=True) and several[0] == 1 > several[1]
  assert at(1024, 32) < at(1024, 256) < at(1024, 4096) < 1
  assert math.isclose(at(1024, 10**7), 1, abs_tol=1e-3)
