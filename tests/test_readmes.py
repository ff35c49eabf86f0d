"""The READMEs: every command has the flags it is given, every config is traced, every link and file is there.

The two main commands are run elsewhere: the quickstart from a wheel, the tests by .ci/run. The scripts in
launch/README.md are run by launch/test_readme.py; the trainings behind them are traced here.
"""

import contextlib
import importlib
import inspect
import re
import shlex
import sys
import tomllib
from unittest import mock

import jax
import pytest
from absl import flags

from fer_jax import __main__ as menu
from fer_jax import registry
from fer_jax.analysis import ablation
from fer_jax.data import face
from fer_jax.errors import UserError
from fer_jax.reports import formats
from fer_jax.training import config_files, setup
from tests.processes import ROOT

TEXTS = {name: (ROOT / name).read_text() for name in (
    'README.md', 'configs/README.md', 'fer_jax/analysis/README.md', 'fer_jax/data/README.md',
    'fer_jax/reports/README.md', 'launch/README.md', 'BUILD_NOTES.md')}
# Programs that tests/launch/test_readme.py knows.
ELSEWHERE = {'mpirun', 'sbatch', 'gcloud', 'kubectl', 'git', 'docker', 'export'}


def lines(name):
  """The commands of a README, in its blocks and between its words, each as a list of words."""
  blocks = re.findall(r'```(?:sh|console)\n(.*?)```', TEXTS[name], re.DOTALL)
  for block in blocks + re.findall(r'`(fer_jax [a-z]+ --[^`]+)`', TEXTS[name]):
    for line in re.split(r'\n| && ', block.replace('\\\n', ' ')):
      if words := shlex.split(line, comments=True):
        yield words


def call(words):
  """Command and arguments of the fer_jax command that these words start, at once or through another; None."""
  for i, word in enumerate(words):
    if word.startswith('fer_jax.') and words[i - 1] == '-m':
      return word.removeprefix('fer_jax.'), words[i + 1:]
  return (words[1], words[2:]) if words[0] == 'fer_jax' else None


CALLS = {shlex.join(words): call(words) for name in TEXTS for words in lines(name) if call(words)}


@contextlib.contextmanager
def given(command, arguments):
  """The values of a command's flags, which are gone again afterwards."""
  before, words = set(flags.FLAGS), [command, *arguments]
  try:
    importlib.import_module(f'fer_jax.{command}').define()
    with mock.patch.object(sys, 'argv', words):  # Where ml_collections looks for changes to a config.
      assert flags.FLAGS(words) == [command]
    yield flags.FLAGS
  finally:
    for name in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()


def builder(dataset, variant=None):
  """A builder's class; raises UserError where there is none, or no such variant."""
  cls = registry.find('data.builders', dataset)
  if variant:
    cls.find_variant(variant)
  return cls


def trace(config):
  """Builds all that a run of ``config`` consists of but its data, and traces its first state."""
  cls = builder(config.data.dataset, config.data.variant)
  setup.make_protocol(config)
  system = setup.make_system(config, config.data.classes or cls.CLASSES or face.EXPRESSIONS[:7], 1000)
  assert jax.tree.leaves(jax.eval_shape(system.initial).params)


@pytest.mark.parametrize('line', CALLS)
def test_commands_have_their_flags_and_configs(line):
  command, arguments = CALLS[line]
  assert command in menu.commands()
  with given(command, arguments) as values:
    known = lambda flag: values[flag].value if flag in values else None
    if command == 'train':
      trace(values.config)
    elif command == 'prepare':
      builder(values.describe or values.dataset, values.variant)
    elif command == 'ablate':
      for row in ablation.choose_rows(values.config, values.rows):
        trace(config_files.load_config(f'{values.config}:{row}', values.set))
    elif command == 'cross':
      for name in values.datasets if values.config else ():
        trace(config_files.load_config(f'{values.config}:{name}', values.set))
    elif command == 'bench':
      for name in [*(values.configs or ()), *(values.scaling or ())]:
        trace(config_files.load_config(name, values.set))
    elif command == 'evaluate':
      config_files.change_config(config_files.load_config('arm:ferplus'), values.set)
    if command in ('report', 'ablate', 'cross'):
      formats.check_out(values.out)
    if command in ('features', 'transfer') and known('dataset'):
      builder(values.dataset, values.variant)


@pytest.mark.parametrize('name', TEXTS)
def test_other_commands_are_known(name):
  extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']
  for words in lines(name):
    if words[:2] == ['pip', 'install']:
      asked = re.findall(r'\.\[(.*?)\]', ' '.join(words))
      assert {extra for group in asked for extra in group.split(',')} <= extras.keys(), words
    elif words[:3] not in (['python', '-m', 'pytest'], ['python', '-m', 'http.server']) and not call(words):
      assert name == 'launch/README.md' and (words[0] in ELSEWHERE or (ROOT / words[0]).is_file()), words


def test_a_wrong_flag_or_config_is_found():
  with pytest.raises(flags.Error), given('evaluate', ['--workdir=x', '--copies']):
    pass
  with pytest.raises(UserError), given('train', ['--workdir=x', '--config=pall:ferplus']):
    pass


def test_the_menu_is_that_of_the_program():
  table = TEXTS['README.md'].partition('## Commands')[2].partition('\n## ')[0]
  assert set(re.findall(r'^\| `(\w+)` \|', table, re.MULTILINE)) == set(menu.commands())


def slugs(text):
  """The anchors of a page's headings, as GitHub makes them."""
  headings = re.findall(r'^#+ (.*)$', re.sub(r'```.*?```', '', text, flags=re.DOTALL), re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('name', TEXTS)
def test_links_and_named_files_are_there(name):
  folder = (ROOT / name).parent
  for path, _, anchor in (link.partition('#') for link in re.findall(r'\]\(([^)]+)\)', TEXTS[name])):
    target = folder / path if path else ROOT / name
    assert target.exists(), path
    assert not anchor or anchor in slugs(target.read_text()), f'{path}#{anchor}'
  named = r'`((?:[\w-]+/)+[\w.-]+\.(?:py|md|json|sh|png|sbatch)|(?:fer_jax|tests|configs|launch)/[\w./]+)(?::[\w:]+)?`'
  for path in re.findall(named, TEXTS[name]):
    if path.split('/')[0] not in ('my_configs', 'runs', 'FACES', 'evaluation'):  # A user's.
      assert any((root / path).exists() for root in (ROOT, ROOT / 'fer_jax', folder)), path


def test_pages_are_short():
  readme, notes = TEXTS['README.md'], TEXTS['BUILD_NOTES.md']
  assert len(readme.splitlines()) <= 150 and len(notes.splitlines()) <= 450
  assert len(re.search(r'```python\n(.*?)```', readme, re.DOTALL)[1].splitlines()) <= 20


def test_every_option_of_a_part_is_explained():
  page = TEXTS['configs/README.md']
  switches = set(re.findall(r'^\| `(\w+)`', page.partition('| switch |')[2].partition('\n\n')[0], re.MULTILINE))
  assert switches == options('losses', 'alignment') | {'weight', 'mask'}
  parts = page.partition('## Parts')[2].partition('\n## ')[0]
  rows = {name: set(re.findall(r'`(\w+)`', re.sub(r'\([^)]*\)', '', row.rpartition(' | ')[2])))
          for name, row in re.findall(r'^\| `(\w+)`(.*) \|$', parts, re.MULTILINE)}
  known = {name: options(kind, name) for kind in ('models.backbones', 'models.heads', 'losses')
           for name in registry.names(kind)}
  assert rows == known | {'alignment': set()}


def options(kind, name):
  """What a config may say of a component."""
  given = {'classes', 'dtype', 'axis_name', 'devices', 'regions', 'forward', 'context', 'name', 'parent'}
  return set(inspect.signature(registry.find(kind, name)).parameters) - given
