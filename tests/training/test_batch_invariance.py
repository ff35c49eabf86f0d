"""No config's logits depend on the other faces of a batch, but for ARM's batch mean, which is marked wherever it shows.

Every config and every row of every ablation table is here, at a tiny size; those with the same forward pass share it.
"""

import functools
import html
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from fer_jax.data.reading import streams
from fer_jax.reports import ablation, benchmark, runs
from fer_jax.reports.ablation_page import write_page
from fer_jax.reports.formats import FORMS, render
from fer_jax.reports.page import write_report
from fer_jax.reports.table import print_evaluation
from fer_jax.runtime import storage
from fer_jax.training import evaluation, setup, step
from fer_jax.training.data import Data
from fer_jax.training.workdir import now, read_run
from tests import faces, pages
from tests.configs.test_ablations import TABLES, table
from tests.configs.test_configs import CASES, get_config
from tests.training.test_evaluation import make_run

FACES = 8
# What an evaluation may do to a batch of eight: rows in another order, faces alone, a few, and padding behind them.
ORDER = np.array([3, 1, 7, 0, 2, 6, 5, 4])


def every_config():
  """(name, config) of all there is; data sets differ in sizes, which are replaced here: one stands for all."""
  yield 'quickstart', get_config('quickstart')
  for name, argument in CASES:
    if argument.startswith('ferplus'):
      yield f'{name}.py:{argument}', get_config(name, argument)
  for name in TABLES:
    for row in table(name).ROWS:
      yield f'ablations/{name}.py:ferplus:{row}', table(name).get_config(f'ferplus:{row}')


def forwards():
  """{what decides a forward pass: (names of the configs that have it, one of them)}."""
  found = {}
  for name, config in every_config():
    faces.shrink(config)
    decides = json.dumps([config[key].to_dict() for key in ('model', 'regions', 'normalise')], sort_keys=True)
    found.setdefault(decides, ([], config))[0].append(name)
  return found


FORWARDS = {names[0]: (names, config) for names, config in forwards().values()}
LEAKY = [f'ablations/arm.py:ferplus:{row}' for row in ('batch', 'batch_sorted', 'batch_shuffled')]


@functools.cache
def batch():
  return streams.rows(faces.source(FACES), range(FACES))


def answers(config):
  """Returns a function from a batch to logits: the config's network with parameters and statistics at random."""
  system = setup.make_system(config, faces.CLASSES, 20)
  variables = faces.drawn(jax.eval_shape(system.initial).variables())
  evaluate = jax.jit(functools.partial(step.evaluation_step, system.recipe, {}))
  return lambda batch: np.asarray(evaluate(variables, batch)['logits'], np.float32)


def rows_of(batch, rows):
  return {name: values[rows] for name, values in batch.items()}


def padded(batch, held, count):
  """The first ``held`` faces, and behind them rows of padding that hold other faces."""
  rows = rows_of(batch, np.arange(count))
  rows['image'] = np.concatenate([rows['image'][:held], 255 - rows['image'][held:]])
  return rows | {'mask': np.arange(count) < held}


def changes(logits, few=True):
  """{what was done: the largest change of a face's logits by it, as a share of the largest logit}.

  Every size of a batch is a program to compile: without ``few``, those of one and of five are left out.
  """
  whole = logits(batch())
  assert np.ptp(whole, axis=0).max() > 0.03 * abs(whole).max()  # The faces are told apart.
  kept = np.arange(FACES)[:, None, None, None] == 5
  others = batch() | {'image': np.where(kept, batch()['image'], 255 - batch()['image'])}
  found = {'order': logits(rows_of(batch(), ORDER)) - whole[ORDER], 'others': logits(others)[[5]] - whole[[5]]}
  five = whole[:5]
  if few:
    five = logits(rows_of(batch(), np.arange(5)))
    found |= {'alone': logits(rows_of(batch(), [5])) - whole[[5]], 'five of eight': five - whole[:5]}
  found |= {'padding': logits(padded(batch(), 5, 8))[:5] - five}
  return {what: abs(change).max() / abs(whole).max() for what, change in found.items()}


# The first config of every head.
FEW = {config.model.head.name: name for name, (_, config) in reversed(FORWARDS.items())}.values()


@pytest.mark.parametrize('name', [name for name in FORWARDS if name not in LEAKY])
def test_logits_depend_on_their_own_face_alone(name):
  names, config = FORWARDS[name]
  found = changes(answers(config), few=name in FEW)
  # Another blocking of a convolution may round otherwise; a bfloat16 has 8 bits.
  assert max(found.values()) < (1e-2 if config.model.dtype == 'bfloat16' else 1e-5), (found, names)


def test_arms_batch_mean_depends_on_the_batch_but_for_order_and_padding():
  names, config = FORWARDS[LEAKY[0]]
  assert names == LEAKY  # Nothing else has it.
  found = changes(answers(config))
  assert found['alone'] > 1e-2 < found['five of eight']
  assert max(found['order'], found['padding']) < 1e-5


REASON = 'each answer depends on the other images of its batch'


def test_arms_batch_mean_is_called_leaky_wherever_its_numbers_are_shown(monkeypatch, tmp_path):
  monkeypatch.setattr(Data, 'open', lambda self, split: faces.source(17, seed=len(split)))
  for row in ('arm', 'batch'):
    config = faces.shrink(table('arm').get_config(f'ferplus:{row}'), explain=ConfigDict())
    workdir = make_run(config, tmp_path / f'{row}-0')
    result = evaluation.evaluate_run(workdir)
    storage.write_json(workdir / 'run.json', read_run(workdir) | {'finished': now()})
    printed = pages.printed(print_evaluation, result, width=200) + pages.printed(print_evaluation, result, verbose=True)
    page = write_report(workdir).read_text(encoding='utf-8')
    benchmark_tables, _ = benchmark.make_tables(runs.collect([str(workdir)])[0], ['ferplus'])
    rows, _ = ablation.collect(tmp_path, {row: 1})
    ablation_tables = ablation.make_tables(rows, 'the command')
    monkeypatch.setenv('COLUMNS', '1000')  # So that no cell is folded.
    shown = [printed, page, *(render(tables, form) for tables in (benchmark_tables, ablation_tables) for form in FORMS),
             write_page(tmp_path, rows, ablation_tables).read_text(encoding='utf-8')]
    assert result['protocol']['leaky'] == (row == 'batch')
    for text in shown:
      words = ' '.join(html.unescape(text).split())
      # What says how to read a page knows the word too.
      assert (REASON in words) == (row == 'batch') and ('LEAKY' in words or row == 'arm')
    marked = [line for table in (*benchmark_tables, *ablation_tables) for line in table.lines if line.style == 'leaky']
    ours = [line for table in benchmark_tables for line in table.lines if line['ours']]
    assert marked == ([*ours, *(line for table in ablation_tables for line in table.lines)] if row == 'batch' else [])
