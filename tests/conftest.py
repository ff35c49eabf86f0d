"""What all tests share: eight virtual CPU devices and no way to reach a user's own data sets."""

import os

# Before the first device is touched; a test that needs one device asks for a mesh of one.
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + (
    ' --xla_force_host_platform_device_count=8'
    # Compiling is most of a test's time: do without the optimisations that cost it.
    ' --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true')
os.environ['JAX_PLATFORMS'] = 'cpu'

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def _own_data_dir(tmp_path_factory, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path_factory.getbasetemp() / 'data'))
