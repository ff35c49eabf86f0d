"""Several seeds at once are the single runs they stand for: their states, their workdirs, one look at the test each."""

import functools
import json
import math
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from configs import baseline
from fer_jax.data.reading import streams
from fer_jax.errors import UserError
from fer_jax.runtime import cluster, scaling
from fer_jax.training import checkpoint, evaluation, loop, metrics_log, seeds, setup, sources, step
from fer_jax.training.workdir import read_run
from tests import faces
from tests.processes import TINY, call, finish, start, start_together
from tests.workdirs import final_state, metrics

# Largest distance of all parameters from the single run's, relative to their norm, after 3 steps: grouped convolutions
# add up in another order. Measured with these tests' settings of the compiler: up to 8e-6. An array alone may be
# further off, as where rounding switches a ReLU: a bias was, by 2e-4, on another processor.
TOLERANCE, OF_AN_ARRAY = 3e-5, 3e-3


def plain(**changes):
  """Cross-entropy alone, which compiles faster than PAL."""
  return faces.shrink(baseline.get_config('synthetic_faces'), **changes)


def source(config):
  """The faces that the config trains on; where targets are drawn, every other face may be of any class."""
  made = faces.source(maps=config.data.maps.to_dict())
  if config.data.target == 'drawn':
    for i, record in enumerate(made.records):
      record['target'] = np.full(7, 1 / 7, np.float32) if i % 2 else np.eye(7, dtype=np.float32)[i % 7]
    made.target = 'target'
  return made


def together(config, count=3, devices=1, teacher=None, equal=False):
  """Takes ``count`` steps of all seeds, from equal states if asked; the state, the meter and the program."""
  data, mesh = source(config), cluster.make_mesh(jax.devices()[:devices])
  members, system = seeds.of(config), setup.make_system(config, data.classes, 20, teacher)
  state = cluster.replicate(members.stack(lambda seed: system.initial(config.seed if equal else seed)), mesh)
  meter = cluster.replicate(members.stack(lambda seed: step.new_meter(system.recipe.terms)), mesh)
  frozen = cluster.replicate(teacher.variables if teacher else {}, mesh)
  batches = members.batches(faces.parts(config, data), batch_size=config.batch_size, threads=0)
  program = cluster.parallel(members.step(system.recipe), mesh, config.parallel, members.axis)
  compiled = None
  for _ in range(count):
    batch = cluster.place(next(batches), mesh, members.axis)
    compiled = compiled or program.lower(state, meter, frozen, batch).compile()
    state, meter = compiled(state, meter, frozen, batch)
  return jax.device_get(state), jax.device_get(meter), compiled


def assert_equal(one, two):
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_array_equal(x, y)


def assert_close(one, two, tolerance=TOLERANCE):
  pairs = [(np.float64(x), np.float64(y)) for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)]
  for (path, _), (x, y) in zip(jax.tree_util.tree_leaves_with_path(one), pairs, strict=True):
    assert np.linalg.norm(x - y) <= OF_AN_ARRAY * max(np.linalg.norm(x), 1e-3), jax.tree_util.keystr(path)
  off, size = (np.sqrt(sum(np.sum(square ** 2) for square in squares)) for squares in zip(
      *[(x - y, x) for x, y in pairs], strict=True))
  assert off <= tolerance * size


def of(stack, i):
  return jax.tree.map(lambda leaf: leaf[i], stack)


def single(config, i):
  return seeds.single(config, config.seed + i)


# Each seed with its own order, a loss that differentiates twice; and one order, with all that is drawn beside it.
OWN = functools.partial(faces.config, seed=1, seeds=4, model__head__dropout=0.2)
SHARED = functools.partial(plain, seed=1, seeds=4, data__seed=7, model__head__dropout=0.2, data__target='drawn')


def test_initial_states_are_those_of_single_runs():
  config = OWN()
  system = setup.make_system(config, faces.CLASSES, 20)
  stack = seeds.of(config).stack(system.initial)
  for i in range(4):
    assert_equal(of(stack, i), setup.make_system(single(config, i), faces.CLASSES, 20).initial())
  assert np.ptp(stack.params['head']['fc']['kernel'], axis=0).min() > 0


@pytest.mark.parametrize('make', [OWN, SHARED], ids=['own order', 'one order'])
def test_four_seeds_equal_four_single_runs(make):
  config = make()
  state, meter, _ = together(config)
  assert (state.step == 3).all() and meter['steps'].tolist() == [3] * 4
  for i in range(4):
    alone = single(config, i)
    one, sums = faces.steps(alone, count=3, data=source(alone))
    assert_close(one.params, of(state, i).params)
    assert_close(one.batch_stats, of(state, i).batch_stats)
    assert_close(one.opt_state, of(state, i).opt_state, 1e-3)  # Momentum: differences of what nearly cancels.
    for name, value in sums.items():
      np.testing.assert_allclose(meter[name][i], value, rtol=1e-4, err_msg=name)
  assert np.ptp(meter['loss']) > 1e-3


def test_a_teacher_of_several_seeds():
  teacher = faces.teacher(plain(seed=9))
  config = plain(seeds=2, data__seed=3)
  with config.unlocked():
    config.losses.distil = {'loss': 'distillation', 'weight': 1.0, 'match': 'logits', 'temperature': 2.0}
  state, meter, _ = together(config, teacher=teacher)
  alone = single(config, 1)
  system = setup.make_system(alone, faces.CLASSES, 20, teacher)
  one, sums = faces.steps(alone, count=3, system=system, frozen=teacher.variables)
  assert_close(one.params, of(state, 1).params)
  np.testing.assert_allclose(meter['loss/distil'][1], sums['loss/distil'], rtol=1e-4)


def gathered(jaxpr):
  """Numbers that all gathers in a program return."""
  count = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'gather':
      count += sum(math.prod(output.aval.shape) for output in equation.outvars)
    for value in equation.params.values():
      for inner in value if isinstance(value, (tuple, list)) else [value]:
        inner = getattr(inner, 'jaxpr', inner)
        count += gathered(inner) if hasattr(inner, 'eqns') else 0
  return count


def test_what_the_seeds_share_is_augmented_once():
  # Images and maps are resampled by gathers, and nothing else in this step gathers as much.
  def count(**changes):
    config = plain(**changes)
    system, members = setup.make_system(config, faces.CLASSES, 20), seeds.of(config)
    state, meter = jax.eval_shape(lambda: (members.stack(system.initial),
                                           members.stack(lambda seed: step.new_meter(system.recipe.terms))))
    batch = next(members.batches(faces.parts(config, faces.source()), batch_size=config.batch_size, threads=0))
    return gathered(jax.make_jaxpr(members.step(system.recipe))(state, meter, {}, batch).jaxpr)

  one = count()
  assert one >= 4 * 8 * 16 * 16  # Four neighbours of every pixel.
  assert count(seeds=3, data__seed=0) == one
  assert count(seeds=3) == 3 * one


@pytest.fixture(scope='module')
def two():
  """Two seeds on one device: (state, meter, program) by data.seed."""
  return functools.cache(lambda data_seed: together(plain(seeds=2, data__seed=data_seed)))


@pytest.mark.parametrize('data_seed', [-1, 7], ids=['own order', 'one order'])
@pytest.mark.parametrize('form', ['jit', 'pmap'])
def test_eight_devices_equal_one(two, form, data_seed):
  state, meter, program = together(plain(seeds=2, data__seed=data_seed, parallel=form), devices=8)
  expected, sums, _ = two(data_seed)
  assert_close(expected.params, state.params)
  for name, value in sums.items():
    np.testing.assert_allclose(meter[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
  if form == 'pmap':  # As many all-reduces as one seed has, and nothing else.
    alone, parameters = scaling.compile_step(plain(parallel='pmap'), cluster.make_mesh())
    found = scaling.collectives(program.as_text())
    assert found.keys() == {'all-reduce'} and found['all-reduce'].size >= 2 * 4 * parameters
    assert found['all-reduce'].count == scaling.collectives(alone.as_text())['all-reduce'].count


@pytest.mark.parametrize('changes', [{'model__head__dropout': 0.5}, {'data__target': 'drawn'}],
                         ids=['dropout', 'drawn targets'])
def test_seeds_with_one_order_differ_in_what_else_is_drawn(changes):
  differing = together(plain(seeds=2, data__seed=7, **changes), equal=True)[1]
  assert abs(np.diff(differing['loss'])) > 1e-3


def test_equal_seeds_with_one_order_stay_equal():
  state, meter, _ = together(plain(seeds=2, data__seed=7), equal=True)
  assert_close(of(state, 0).params, of(state, 1).params)
  np.testing.assert_allclose(meter['loss'][0], meter['loss'][1], rtol=1e-6)


def test_each_seed_decides_what_it_should():
  def made(**changes):
    config = faces.config(**changes)
    system = setup.make_system(config, faces.CLASSES, 20)
    batch = next(seeds.of(config).batches(faces.parts(config, faces.source()), batch_size=8, threads=0))
    return system.initial().params, batch['image'], system.recipe

  params, images, recipe = made(seed=3)
  same, others, other_recipe = made(seed=3, data__seed=4)
  assert_equal(params, same)
  assert (images != others).any() and (recipe.data_seed, other_recipe.data_seed, other_recipe.seed) == (3, 4, 3)
  different, as_before, third = made(seed=5, data__seed=3)
  np.testing.assert_array_equal(images, as_before)
  assert (params['head']['fc']['kernel'] != different['head']['fc']['kernel']).any()
  assert (third.seed, third.data_seed) == (5, 3)


def test_batches_of_several_seeds_are_those_of_each():
  config = plain(seeds=3)
  parts = faces.parts(config, faces.source())
  stacked = seeds.of(config).batches(parts, batch_size=8, threads=2, start_step=2)
  ours = [next(stacked) for _ in range(3)]
  for i in range(3):
    theirs = streams.training_batches(parts, seed=i, batch_size=8, threads=0, start_step=2)
    for batch in ours:
      for name, rows in next(theirs).items():
        np.testing.assert_array_equal(batch[name][i], rows)


# Whole runs.

@pytest.fixture(autouse=True, scope='module')
def splits():
  made = {'train': faces.source(64, seed=0), 'valid': faces.source(17, seed=1), 'test': faces.source(20, seed=2)}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sources, 'open_source', lambda config, split: made[split])
    yield


# Steps so small that training does not blow rounding up.
RUN = functools.partial(plain, seed=1, seeds=2, optimizer__learning_rate=0.003)


@pytest.fixture(scope='module')
def finished(tmp_path_factory, splits):
  """A run of two seeds, 8 steps, and what it returned."""
  workdir = tmp_path_factory.mktemp('seeds') / 'run'
  return workdir, loop.train(RUN(), workdir, ['--config.seeds=2'])


def test_a_run_of_seeds_leaves_a_workdir_for_each(finished):
  workdir, results = finished
  record = read_run(workdir)
  assert record['finished'] and record['seeds'] == [1, 2] and list(results) == [1, 2]
  assert not (workdir / 'evaluation').exists()
  for i, line in enumerate(lines := metrics(workdir)):
    assert set(line['by_seed']) >= ({'accuracy', 'nll'} if line['kind'] == 'valid' else {'loss', 'gradient_norm'})
    for name, values in line['by_seed'].items():
      np.testing.assert_allclose(line[name], np.mean(values))
      for k, value in enumerate(values):
        assert metrics(workdir / f'seed-{1 + k}')[i][name] == value
  assert {line['kind'] for line in lines} == {'train', 'valid'}
  for seed, result in results.items():
    folder = workdir / f'seed-{seed}'
    own = read_run(folder)
    assert own['finished'] and own['looks'] == {'test': 1} and own['seed'] == seed and own['seeds'] == [1, 2]
    assert own['overrides'] == ['--config.seeds=2'] and own['parameters'] == record['parameters']
    config = json.loads((folder / 'config.json').read_text())
    assert config == json.loads((workdir / 'config.json').read_text()) | {'seed': seed, 'seeds': 1}
    assert result == json.loads((folder / 'evaluation/test.json').read_text()) and result['seed'] == seed
    assert '<html' in (folder / 'report.html').read_text() and (folder / 'parameters.txt').exists()
  assert not list(workdir.rglob('*.part*'))


def test_a_seed_is_the_single_run(finished, tmp_path, capsys):
  # The same evaluation, up to the rounding of logits; the same panel before training; and nothing left to do.
  alone = single(RUN(), 1)
  result = loop.train(alone, tmp_path / 'alone')
  folder = finished[0] / 'seed-2'
  assert_close(final_state(tmp_path / 'alone')[1].params, final_state(folder)[1].params)
  assert result['confusion'] == finished[1][2]['confusion']
  np.testing.assert_allclose(result['nll'], finished[1][2]['nll'], rtol=1e-4)
  for one, two in zip(metrics(tmp_path / 'alone'), metrics(folder), strict=True):
    assert one.keys() == two.keys() and one['step'] == two['step']
    for name in one.keys() - {'kind', 'images_per_second', 'data_wait'}:
      np.testing.assert_allclose(one[name], two[name], rtol=1e-3, err_msg=name)
  with np.load(tmp_path / 'alone/panel.npz') as one, np.load(folder / 'panel.npz') as two:
    assert one.files == two.files
    for name in one.files:
      if name.startswith('before/'):
        np.testing.assert_allclose(one[name], two[name], atol=1e-6)
  capsys.readouterr()
  again = loop.train(alone, folder)
  assert again == finished[1][2] and 'nothing to do' in capsys.readouterr().out


def test_commands_work_on_a_seed_and_name_the_seeds_otherwise(finished, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(finished[0], workdir)
  result = evaluation.evaluate_run(workdir / 'seed-1')
  assert result['protocol']['looks'] == 2 and result['confusion'] == finished[1][1]['confusion']
  with pytest.raises(UserError, match=f'{workdir} holds 2 seeds that were trained at once: name .* {workdir}/seed-1,'):
    evaluation.evaluate_run(workdir)


def test_finished_seeds_are_not_evaluated_again(finished, tmp_path, capsys):
  workdir = tmp_path / 'run'
  shutil.copytree(finished[0], workdir)
  capsys.readouterr()
  assert loop.train(RUN(), workdir) == finished[1]
  printed = capsys.readouterr().out
  assert 'nothing to do' in printed and '2 seeds, 20 faces' in printed and '95 % from' in printed
  assert read_run(workdir / 'seed-2')['looks'] == {'test': 1}
  shutil.rmtree(workdir / 'seed-2')
  with pytest.raises(UserError, match=f'has finished, but {workdir}/seed-2/evaluation/test.json is gone; put it back'):
    loop.train(RUN(), workdir)


def test_stopped_in_training_and_twice_in_splitting_it_ends_with_the_same_bits(finished, tmp_path, monkeypatch):
  real, workdir = streams.training_batches, tmp_path / 'run'

  def interrupted(*arguments, **options):
    for i, batch in enumerate(real(*arguments, **options)):
      if i == 4 and options['seed'] == 2:
        os.kill(os.getpid(), signal.SIGTERM)
      yield batch

  with monkeypatch.context() as patch:
    patch.setattr(streams, 'training_batches', interrupted)
    with pytest.raises(SystemExit) as stop:
      loop.train(RUN(), workdir)
  assert stop.value.code == cluster.PREEMPTED
  assert metrics(workdir)[-1]['step'] == 5 and not (workdir / 'seed-1').exists()

  # Killed while the first seed's checkpoint is not there yet.
  def killed(*_, **__):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(metrics_log, 'copy_of_seed', killed)
    with pytest.raises(KeyboardInterrupt):
      loop.train(RUN(), workdir)
  assert (workdir / 'seed-1/config.json').exists() and not (workdir / 'seed-1/checkpoints').exists()

  # Killed when the second seed's test split has been looked at, but not recorded; the first seed is done.
  neighbours = evaluation.draw_neighbours

  def second(table, source, folder):
    return killed() if folder.name == 'seed-2' else neighbours(table, source, folder)

  with monkeypatch.context() as patch:
    patch.setattr(evaluation, 'draw_neighbours', second)
    with pytest.raises(KeyboardInterrupt):
      loop.train(RUN(), workdir)
  assert 'finished' in read_run(workdir / 'seed-1') and 'finished' not in read_run(workdir / 'seed-2')
  assert 'finished' not in read_run(workdir)
  before = read_run(workdir / 'seed-1')

  results = loop.train(RUN(), workdir)
  assert read_run(workdir)['finished'] and read_run(workdir / 'seed-1') == before
  for seed in (1, 2):
    assert results[seed]['protocol']['looks'] == 1 and results[seed]['confusion'] == finished[1][seed]['confusion']
    (a, one), (b, two) = final_state(finished[0] / f'seed-{seed}'), final_state(workdir / f'seed-{seed}')
    assert a == b == 8
    assert_equal(one, two)


def test_a_stack_saved_on_eight_devices_comes_back_on_one(finished):
  config = RUN()
  system, members = setup.make_system(config, faces.CLASSES, 8), seeds.of(config)
  checkpoints = checkpoint.Checkpoints(finished[0] / 'checkpoints')
  mesh = cluster.make_mesh(jax.devices()[:1])
  at, state = checkpoints.restore_latest(jax.eval_shape(lambda: members.stack(system.initial)), mesh)
  checkpoints.close()
  assert at == 8
  for i, own in enumerate(members.each(state, mesh)):
    assert_equal(own, final_state(finished[0] / f'seed-{1 + i}')[1])


def test_seeds_start_from_another_runs_backbone(finished, tmp_path):
  config = RUN(init_from=str(finished[0] / 'seed-1'))
  plan = loop.make_plan(config, cluster.make_mesh())
  there = setup.load(finished[0] / 'seed-1', cluster.make_mesh()).variables['params']['backbone']
  stack = plan.seeds.stack(plan.initial)
  for i in range(2):
    assert_equal(of(stack, i).params['backbone'], there)
  assert np.ptp(stack.params['head']['fc']['kernel'], axis=0).min() > 0
  with pytest.raises(UserError, match=f'{finished[0]} holds 2 seeds'):
    loop.make_plan(RUN(init_from=str(finished[0])), cluster.make_mesh())


def test_a_seed_that_diverges_is_named(tmp_path):
  with pytest.raises(UserError, match='cross_entropy of seeds 1 and 2 became (nan|inf).*learning_rate'):
    loop.train(RUN(optimizer__learning_rate=1e30, optimizer__warmup=0.0), tmp_path / 'a')
  values = {'loss': np.array([1.0, np.nan, 1.0]), 'loss/pal': np.array([1.0, np.nan, 1.0]), 'accuracy': np.ones(3)}
  with pytest.raises(UserError, match=r'^pal of seed 6 became nan between steps 3 and 4; the last checkpoint is from'):
    metrics_log.check_finite(values, 2, 4, range(5, 8))
  metrics_log.check_finite({'loss': np.ones(3)}, 2, 4, range(5, 8))


@pytest.mark.parametrize('changes, message', [
    ({'seeds': 0}, 'config.seeds=0: give how many seeds are trained, 1 or more'),
    ({'data__seed': -2}, 'config.data.seed=-2: give a seed, 0 or more, or -1'),
    ({'seeds': 2, 'select': 'holdout'}, "config.select='holdout' with config.seeds=2: the best step is another"),
    ({'seeds': 3, 'select': 'best_on_test'}, "config.select='best_on_test' with config.seeds=3"),
    ({'seeds': 2, 'batch_size': 12}, 'config.batch_size=12 does not split over 8 devices')])
def test_bad_choices(changes, message, tmp_path):
  with pytest.raises(UserError, match=message):
    loop.train(plain(**changes), tmp_path / 'a')
  assert not (tmp_path / 'a').exists()


def test_a_workdir_of_one_seed_does_not_become_one_of_several(finished):
  with pytest.raises(UserError, match='holds a run of another config: seeds is 2 there, 3 here'):
    loop.train(RUN(seeds=3), finished[0])


def test_two_processes_train_the_seeds_as_one_does(tmp_path):
  command = ('train', '--config=configs/baseline.py', *TINY, '--config.seeds=2', '--config.parallel=pmap',
             '--config.optimizer.learning_rate=0.0003', '--config.epochs=1.0')
  finish([start(*command, f'--workdir={tmp_path}/one', data_dir=tmp_path, devices=2)])
  (printed, _), _ = finish(start_together(2, *command, f'--workdir={tmp_path}/two', data_dir=tmp_path))
  assert '2 seeds' in printed and 'mean' in printed and read_run(tmp_path / 'two')['processes'] == 2
  for seed in (0, 1):
    (a, one), (b, two) = (final_state(tmp_path / name / f'seed-{seed}') for name in ('one', 'two'))
    assert a == b
    assert_close(one.params, two.params, 1e-4)
    first, second = (json.loads((tmp_path / name / f'seed-{seed}/evaluation/test.json').read_text())
                     for name in ('one', 'two'))
    assert first['confusion'] == second['confusion'] and second['protocol']['looks'] == 1


def test_the_bench_compares_seeds_at_once_with_single_steps(tmp_path):
  changes = [argument.replace('--config.', '--set=') for argument in TINY if 'log_every' not in argument]
  status, out, err = call('bench', '--configs=configs/baseline.py', '--seeds=2', '--rounds=2', '--steps=1', *changes,
                          data_dir=tmp_path)
  assert status == 0, err
  for words in ('2 single steps of', '2 seeds at once', 'order', 'FLOPs ratio'):
    assert words in out
  status, _, err = call('bench', '--faces=synthetic_faces', '--seeds=2', data_dir=tmp_path)
  assert status == 2 and err.startswith('error: --seeds=2 goes with --configs: name the configs')
