"""The package as it is installed elsewhere: a wheel that has all it needs to train, and dependencies new enough."""

import importlib.metadata
import subprocess
import sys
import tomllib
import venv

import pytest
from packaging.requirements import Requirement

from tests.processes import ROOT, TINY, environment

PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
  """A virtual environment that has the wheel, and sees what this Python has but for this clone; its folder."""
  folder = tmp_path_factory.mktemp('install')
  run = lambda *command, **more: subprocess.run(command, check=True, capture_output=True, text=True, **more)
  run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', f'--wheel-dir={folder}', str(ROOT))
  venv.create(folder / 'env', with_pip=False, symlinks=True)
  site, = (folder / 'env').glob('lib/python*/site-packages')
  run(sys.executable, '-m', 'pip', 'install', '--no-deps', f'--prefix={folder / "env"}', '--ignore-installed',
      str(next(folder.glob('*.whl'))))
  # Only the folders, not the .pth files in them: one of those leads to this clone.
  (site / 'others.pth').write_text('\n'.join(path for path in sys.path if path.endswith('site-packages')))
  return folder


def call(installed, *command, cwd):
  """Runs a program of the environment; returns its output."""
  own = environment(cwd / 'data') | {'PYTHONPATH': ''}
  done = subprocess.run([installed / 'env' / 'bin' / command[0], *command[1:]], cwd=cwd, env=own, text=True,
                        capture_output=True, timeout=300)
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_the_wheel_trains_by_the_name_of_a_config(installed, tmp_path):
  where = call(installed, 'python', '-c', 'import fer_jax; print(fer_jax.__file__)', cwd=tmp_path)
  assert where.startswith(str(installed))
  assert '  train ' in call(installed, 'fer_jax', cwd=tmp_path)
  printed = call(installed, 'fer_jax', 'train', '--config=pal:synthetic_faces', '--workdir=run', *TINY,
                 '--config.epochs=0.25', cwd=tmp_path)
  assert 'Report: ' in printed and (tmp_path / 'run' / 'report.html').exists()
  assert '"finished"' in (tmp_path / 'run' / 'run.json').read_text()


def test_the_wheel_has_every_file_of_the_package(installed):
  site, = (installed / 'env').glob('lib/python*/site-packages/fer_jax')
  files = subprocess.run(['git', 'ls-files', 'fer_jax', 'configs'], cwd=ROOT, text=True, capture_output=True,
                         check=True).stdout.split()
  wanted = {path.removeprefix('fer_jax/') for path in files
            if not path.endswith('.png') and not path.startswith('configs/records/') and (ROOT / path).exists()}
  assert wanted <= {str(path.relative_to(site)) for path in site.rglob('*')}
  assert not (site / 'configs/records').exists()


@pytest.mark.parametrize('extra', [None, *PROJECT['optional-dependencies']])
def test_what_is_installed_is_new_enough(extra):
  wanted = PROJECT['optional-dependencies'][extra] if extra else PROJECT['dependencies']
  for requirement in map(Requirement, wanted):
    assert requirement.specifier, f'{requirement} has no lower bound'
    try:
      version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
      assert extra, f'{requirement} is not installed'
      continue
    assert requirement.specifier.contains(version, prereleases=True), f'{requirement}, but {version} is installed'
