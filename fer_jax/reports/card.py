"""The model card of a finished run, ``MODEL_CARD.md``: what it is, its numbers, what they do not say, terms and law.

Everything in it comes from the run's own files and from the builder of its data. ``report`` and ``export`` write it.
"""

import datetime
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from fer_jax import registry
from fer_jax.data.preparing.builder import parse_variant
from fer_jax.errors import UserError
from fer_jax.reports import calibration
from fer_jax.reports.formats import Column, Line, Table, markdown_text, render
from fer_jax.reports.runs import Run, net, read, start_of
from fer_jax.reports.table import class_table, subset_table
from fer_jax.reports.template import ENVIRONMENT
from fer_jax.reports.words import (
  brief,
  chosen,
  evaluations,
  interval,
  leaks,
  mark,
  measures,
  named,
  percent,
  remarks,
  title,
  warnings,
)
from fer_jax.runtime import storage

FILE = 'MODEL_CARD.md'

INTENDED_USE = ('research on the recognition of facial expressions: comparing methods, and studying what such networks '
                'look at and get wrong')

# Where its training data are drawn faces alone.
_DRAWN = 'synthetic_faces'


def write_card(workdir: str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> epath.Path:
  """Writes ``card`` to ``path``, by default ``WORKDIR/MODEL_CARD.md``; returns where.

  Raises:
    UserError: see ``card``, or it cannot be written.
  """
  path = storage.as_path(path or storage.as_path(workdir) / FILE)
  storage.write_text(path, card(workdir))
  return path


def card(workdir: str | os.PathLike[str]) -> str:
  """The model card of the run in ``workdir``, GitHub-flavoured Markdown.

  Raises:
    UserError: there is no run, it has not finished, or its files are damaged.
  """
  runs, problems = read([os.fspath(workdir)])
  if not runs:
    raise UserError(f'no model card: {problems[0]}')
  try:
    contents = _contents(runs[0], _calibration(runs[0]))
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise UserError(f'no model card: {workdir} is damaged or of another version: {type(error).__name__}: {error}.'
                    ) from error
  # Its texts are escaped here, for Markdown; the environment's are for HTML.
  return ENVIRONMENT.overlay(autoescape=False).get_template('card.md.jinja').render(contents)


def facts(workdir: str | os.PathLike[str]) -> dict[str, str]:
  """What travels with an exported file: 'licence', 'training_data', 'intended_use', and 'protocol', the words of its
  mark; each a text in one line.

  Raises:
    UserError: see ``card``.
  """
  runs, problems = read([os.fspath(workdir)])
  if not runs:
    raise UserError(problems[0])
  run = runs[0]
  licences = '; '.join(f'{name}: {terms}' for name, terms in _terms(run))
  return {'licence': licences, 'training_data': '; '.join(_trained_on(run)), 'intended_use': INTENDED_USE,
          'protocol': _verdict(run)}


def _contents(run: Run, calibrated: Mapping[str, Any] | None) -> dict[str, Any]:
  """The variables of the template, all texts escaped."""
  config, record, result = run.config, run.record, run.result
  datasets = {name for name, _ in _datasets(run)}
  say = lambda texts: [markdown_text(text) for text in texts]
  return {
      'name': markdown_text(str(result['name'])),
      'written': datetime.date.today().isoformat(),
      'warnings': say(warnings(leaks(result), remarks(result))),
      'what': _table([('classes, in the order of the outputs', ', '.join(result['classes'])), *_network(run)]),
      'trained_on': say(_trained_on(run)),
      'start': markdown_text(start_of(run) or 'random parameters'),
      'chosen': markdown_text(chosen(result['protocol'])),
      'tested_on': markdown_text(f"{title(result)} of {named(result['protocol'])}, {result['count']:,} labelled faces"),
      'times': evaluations(result),
      'verdict': markdown_text(_verdict(run)),
      'mark': mark(result),
      'numbers': _numbers(result),
      'classes': _body(class_table(result)),
      'absent': markdown_text(', '.join(result.get('absent_classes') or ())),
      'subsets': _body(subset_table(result)) if result.get('subsets') else '',
      'calibration': markdown_text(calibration.words(calibrated)) if calibrated else '',
      'calibration_warnings': say(warnings(leaks(calibrated), calibration.remarks(calibrated))) if calibrated else [],
      'calibration_numbers': [_before_and_after(calibrated), *map(_body, calibration.tables([result]))
                              ] if calibrated else [],
      'drawn': datasets == {_DRAWN},
      'corrupted': bool(_files(run.workdir, 'robustness')),
      'seed': config['seed'],
      'terms': [(markdown_text(name), markdown_text(terms)) for name, terms in _terms(run)],
      'start_terms': _start_terms(record),
      'intended': INTENDED_USE,
      'made': _table([
          ('command', record.get('command', 'unknown')), ('commit', record.get('commit', 'unknown')),
          ('started, finished', f"{record.get('started', 'unknown')}, {record['finished']}"),
          ('hardware of the training', record.get('hardware', 'unknown')), ('seed', str(config['seed'])),
          ('step', f"{result['step']:,}"), ('digest of the prepared data', record.get('digest') or 'unknown'),
          ('fingerprint of the training split', record.get('fingerprint') or 'unknown'),
          ('evaluated', f"{result.get('evaluated', 'unknown')} by {result['commit']}, {result['hardware']}"),
          ('versions', brief(record.get('versions') or 'unknown'))]),
  }


def _network(run: Run) -> Iterator[tuple[str, str]]:
  """What the network is, in pairs of a key and a text."""
  config, record = run.config, run.record
  head, data, regions = config['model']['head'], config['data'], config.get('regions') or {'scheme': 'none'}
  channels = {1: 'grey', 3: 'RGB'}.get(record.get('channels'), 'unknown')
  aligned = parse_variant(data['variant'])[1]
  yield 'backbone', net(run, ', ')
  yield 'head', ', '.join([head['name'], *(f'{key} {brief(value)}' for key, value in head.items() if key != 'name')])
  if regions['scheme'] != 'none':
    yield 'regions beside the face', f"{regions['scheme']}, {regions['count']}"
  yield 'parameters', f"{record['parameters']:,}" if 'parameters' in record else 'unknown'
  yield 'input', f"{config['image_size']} x {config['image_size']} pixels, {channels}"
  yield 'alignment of the faces', (f'eyes, nose and mouth brought to one place, {aligned} pixels' if aligned else
                                   'as the data set has them')
  for name, term in (config.get('losses') or {}).items():
    if term.get('weight'):
      options = ', '.join(f'{key} {brief(value)}' for key, value in term.items() if key not in ('loss', 'weight'))
      yield f'loss {name}', f"{term['loss']}, weight {brief(term['weight'])}" + f' ({options})' * bool(options)
  yield 'training', f"{config['epochs']:g} epochs, batches of {config['batch_size']}"


def _datasets(run: Run) -> list[tuple[str, str]]:
  """Data sets that had a part in making the network, and which part, in words."""
  data, record, found = run.config['data'], run.record, []
  found.append((data['dataset'], f"{data['train']} of {named(data)}"))
  if holdout := run.result['protocol'].get('chosen_by'):
    found.append((data['dataset'], f'its step was chosen by {holdout} of {named(data)}'))
  for name, source in (run.config.get('sources') or {}).items():
    if source.get('parts', 1):
      dataset = source.get('dataset') or data['dataset']
      found.append((dataset, f"the source '{name}', {source['split']} of {dataset}, supervision "
                    f"{source.get('supervision', 'none')}"))
  if teacher := record.get('teacher'):
    found.append((teacher['dataset'], f"a teacher ({teacher['name']}, seed {teacher['seed']}), trained on "
                  f"{teacher['trained_on']} of {teacher['dataset']}"))
  return found


def _trained_on(run: Run) -> list[str]:
  counts = [f"{sum(stop - start for _, start, stop in one['intervals']):,} faces" for one in run.record.get('seen', ())
            if one['who'] == 'the network' and not one['source'] and one['how'] == 'trained' and not one['classes']]
  first, *others = (words for _, words in _datasets(run))
  return [', '.join([first, *counts[:1]]), *others]


def _terms(run: Run) -> list[tuple[str, str]]:
  """What the owners allow, by data set."""
  found = []
  for name in dict.fromkeys(name for name, _ in _datasets(run)):
    try:
      builder = registry.find('data.builders', name)
      terms, shareable = builder.TERMS or 'not known here', builder.SHAREABLE
    except UserError:  # A folder, or a builder that is gone.
      terms, shareable = 'those of whoever made the faces; not known here', True
    found.append((name, terms + '; its faces may not be passed on' * (not shareable and 'passed on' not in terms)))
  return found


def _start_terms(record: Mapping[str, Any]) -> list[str]:
  """What is known of pretrained weights that the network, or the run it started from, began with."""
  said, start = [], record.get('start')
  while start:
    if 'sha256' in start:
      said.append(f"{start['title']} ({start['file']}, sha256 {start['sha256']}; {start['origin']}): licence "
                  f"{start['licence']}; trained on {start['training_data']}")
    else:
      said.append(f"the run {start['run']} (seed {start['seed']}, step {start['step']:,}, commit {start['commit']}): "
                  'the terms of its own data hold as well, see its card')
    start = start.get('from')
  return [markdown_text(text) for text in said]


def _verdict(run: Run) -> str:
  """What the protocol says of the test split's faces."""
  if reasons := leaks(run.result):
    return f"LEAKY: {'; '.join(reasons)}"
  trained = run.result['protocol'].get('seen_in_training')
  seen = f"{trained:,} of the {run.result['protocol']['n']:,} test images were trained on" if trained is not None else (
      'what it was trained on was not compared with the test images')
  return f'no leak: {seen}, and none chose the step'


def _numbers(result: Mapping[str, Any]) -> str:
  """The table of an evaluation's numbers."""
  rows = [(name, percent(result[key]), interval(result.get(ends)), '')
          for name, key, ends in (('accuracy', 'accuracy', 'accuracy_interval'),
                                  ('mean class accuracy', 'mean_class_accuracy', 'mean_class_interval'))]
  if other := result.get('without_duplicates'):
    rows.append(('accuracy without duplicates of training images', percent(other['accuracy']),
                 interval(other['accuracy_interval']), f"{other['count']:,} faces"))
  rows += [(name, text, '', remark) for name, text, remark in measures(result)]
  names = ('number', 'value', '95 % over faces', 'remark')
  lines = [Line(dict(zip(names, (row[0] + mark(result), *row[1:]), strict=True))) for row in rows]
  return _body(Table('', tuple(map(Column, names)), tuple(lines)))


def _before_and_after(found: Mapping[str, Any]) -> str:
  """Scores of the faces that a temperature was fitted on."""
  lines = [Line({'on the faces of the fit': name, 'before': f"{found['before'][key]:.4f}",
                 'after': f"{found['after'][key]:.4f}"})
           for key, name in (('nll', 'NLL, nats'), ('ece', 'ECE'), ('brier', 'Brier'))]
  return _body(Table('', tuple(map(Column, ('on the faces of the fit', 'before', 'after'))), tuple(lines)))


def _calibration(run: Run) -> dict[str, Any] | None:
  """The run's calibration.json; None where there is none of this network."""
  try:
    found = storage.read_json(storage.as_path(run.workdir) / 'calibration.json')
    return found if found['step'] == run.result['step'] else None
  except FileNotFoundError:
    return None


def _files(workdir: str, folder: str) -> Sequence[Path]:
  path = storage.as_path(workdir) / folder
  return [file for file in path.iterdir() if file.suffix == '.json'] if path.exists() else []


def _table(rows: Sequence[tuple[str, str]]) -> str:
  return _body(Table('', (Column('what'), Column('value')), tuple(Line({'what': key, 'value': value})
                                                                  for key, value in rows)))


def _body(table: Table) -> str:
  """A table as Markdown without its heading."""
  return re.sub(r'\A## .*\n\n', '', render([table], '.md')).strip()
