"""What all tests share: eight virtual CPU devices and no way to reach a user's own data sets."""

import gc
import os
import random
import shutil
import subprocess
import tempfile

# Before the first device is touched; a test that needs one device asks for a mesh of one.
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + (
    ' --xla_force_host_platform_device_count=8'
    # Compiling is most of a test's time: do without the optimisations that cost it.
    ' --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true')
os.environ['JAX_PLATFORMS'] = 'cpu'
# Tests, their workers and the processes they start compile many of the same programs: once is enough.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', os.path.join(tempfile.gettempdir(), 'fer_jax_test_cache'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')

import pytest  # noqa: E402
from tensorflow_datasets.core import constants  # noqa: E402

# Minutes each: these files come first, so that no worker is left with one of them while the other has nothing to do.
_LONG = ('test_faults', 'test_distributed', 'test_loop', 'test_ablations', 'test_ablate', 'test_faithfulness',
         'test_combinations', 'test_commands', 'test_cross', 'test_scaling', 'test_install')


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: _LONG.index(item.path.stem) if item.path.stem in _LONG else len(_LONG))


@pytest.fixture(autouse=True)
def _own_data_dir(tmp_path_factory, monkeypatch):
  folder = str(tmp_path_factory.getbasetemp() / 'data')
  monkeypatch.setenv('TFDS_DATA_DIR', folder)
  monkeypatch.setattr(constants, 'DATA_DIR', folder)  # TFDS reads the variable when it is imported.


def pytest_collection_finish():
  gc.freeze()  # Tracing makes many objects, and looking through all of them again and again takes a tenth of the time.
  gc.set_threshold(50_000, 20, 20)


def pytest_addoption(parser):
  parser.addoption('--seed', type=int, help='Of tests that act at random moments; drawn anew by default.')


@pytest.fixture
def chance(request):
  """A source of random numbers; what a failing test prints says how to repeat it."""
  seed = request.config.getoption('--seed')
  seed = random.randrange(10**6) if seed is None else seed
  print(f"To repeat it: python -m pytest -n 0 --seed={seed} '{request.node.nodeid}'")
  return random.Random(seed)


@pytest.fixture
def small_disk(tmp_path):
  """A file system of a few MB, where root may mount one."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  mounted = shutil.which('mount') and subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', str(folder)], capture_output=True).returncode == 0
  if not mounted:
    pytest.skip('mounting a small file system is not allowed here')
  yield folder
  subprocess.run(['umount', '--lazy', str(folder)], check=True)
