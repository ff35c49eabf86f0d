"""Fabricates the rows of an ablation, and reads the page that is made of them."""

import numpy as np

from fer_jax.metrics.summary import summarise
from fer_jax.reports.ablation_page import write_page
from fer_jax.reports.ablation_rows import Row
from fer_jax.reports.runs import Run
from tests.pages import Page

CLASSES = ['neutral', 'happiness', 'fear']


def answers(seed, row):
  rng = np.random.default_rng([seed, row])
  label = np.arange(60) % 3
  return label, np.where(rng.random(60) < 0.8 - 0.1 * row, label, rng.integers(0, 3, 60))


def result(seed, row, **protocol):
  rng = np.random.default_rng([seed, row, 1])
  label, prediction = answers(seed, row)
  align = lambda low: {key: float(low + rng.uniform(0, 0.1)) for key in ('pearson', 'action_unit_published_cosine')}
  return summarise({'label': label, 'prediction': prediction}, CLASSES) | {
      'alignment': {'cam': align(0.4), 'logit_sum': align(0.5), 'attention': align(0.6),
                    'uniform': {'pearson': 0.0, 'action_unit_published_cosine': 0.47}},
      'protocol': {'dataset': 'drawn', 'variant': 'v1', 'split': 'test', 'trained_on': 'train+valid', 'select': 'last',
                   'leaky': False, 'evaluations': 1, 'n': 60, 'K': 3, 'fingerprint': 'f', **protocol},
      'step': 5, 'name': f'priors/row{row}', 'overrides': [], 'commit': 'abc', 'hardware': 'two cores'}


def config(seed, row):
  return {'name': f'priors/row{row}', 'seed': seed, 'data': {'dataset': 'drawn', 'dir': f'/{seed}', 'seed': -1},
          'model': {'backbone': {'name': 'resnet', 'depth': 10, 'width': 16}}, 'image_size': 48, 'init_from': '',
          'losses': {'pal': {'loss': 'alignment', 'attribution': 'grad_input', 'target': 'logit_sum',
                             'weight': row / 2}},
          'explain': {'attention': {'attribution': 'activation', 'target': 'logit_sum'},
                      'cam': {'attribution': 'grad_input', 'target': 'true_class'},
                      'logit_sum': {'attribution': 'grad_input', 'target': 'logit_sum'}}}


def panel(row, names=('a', 'b'), maps=('attention', 'cam', 'logit_sum')):
  rng = np.random.default_rng(row)
  n = len(names)
  return {'images': rng.integers(0, 256, (n, 16, 16, 1), np.uint8), 'priors': rng.integers(0, 256, (n, 8, 8), np.uint8),
          'labels': np.arange(n) % 3, 'predictions': (np.arange(n) + row * (np.arange(n) == 1)) % 3,
          'names': np.array(names), **{f'after/{name}': rng.normal(size=(n, 4, 4)) for name in maps}}


def make_run(folder, seed, row, full=False, **protocol):
  workdir = folder / f'row{row}-{seed}'
  workdir.mkdir(parents=True, exist_ok=True)
  (workdir / 'report.html').write_text('a page')
  if not seed:
    np.savez(workdir / 'panel.npz', **panel(row))
  (workdir / 'evaluation').mkdir(exist_ok=True)
  if full:
    np.savez(workdir / 'evaluation/test.npz', **dict(zip(('label', 'prediction'), answers(seed, row), strict=True)))
  record = {'classes': CLASSES, 'commit': 'abc', 'hardware': 'two cores', 'parameters': 123456, 'shareable': True}
  evaluated = result(seed, row, **protocol)
  return Run(str(workdir), config(seed, row), record, evaluated if full else {**evaluated, 'alignment': {}})


def make_rows(folder, seeds=3, count=3, full=False, **protocols):
  """Rows 'row0', 'row1' ...; ``protocols`` {name of a row: what its protocol has}; ``full``: maps and predictions."""
  return [Row(f'row{i}', tuple(make_run(folder, seed, i, full, **protocols.get(f'row{i}', {}))
                               for seed in range(seeds)), 3) for i in range(count)]


def changed(run, **changes):
  return Run(run.workdir, run.config, run.record, {**run.result, **changes})


def render(folder, rows, tables=()):
  path = write_page(folder, rows, tables)
  assert path == folder / 'report.html'
  text = path.read_text(encoding='utf-8')
  return text, Page(text)


def section(text, name):
  return text.split(f'id="{name}"')[1].split('<section' if name != 'summary' else 'id="accuracy"')[0]
