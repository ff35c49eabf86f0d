"""The CPU flag: set for the jaxlib it was measured with, and never over the user's own choice."""

import os

import jaxlib
import pytest

from fer_jax import cluster
from fer_jax.errors import UserError


def started(monkeypatch, version='0.10.2', **environment):
  monkeypatch.setattr(jaxlib, '__version__', version)
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  monkeypatch.delenv('FER_JAX_CPU_FLAGS', raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  cluster.start()
  return os.environ.get('XLA_FLAGS', '')


def test_flag_is_added_once_and_can_be_overridden(monkeypatch):
  flag = cluster.XLA_FLAGS['0.10.2']
  assert started(monkeypatch) == flag
  assert started(monkeypatch, XLA_FLAGS='--xla_x=1') == f'--xla_x=1 {flag}'
  own = flag.split('=')[0] + '=own'
  assert started(monkeypatch, XLA_FLAGS=own) == own
  assert started(monkeypatch, FER_JAX_CPU_FLAGS='0') == ''


def test_another_jaxlib_gets_no_flag_it_may_not_know(monkeypatch):
  assert started(monkeypatch, version='0.99.0') == ''


def test_a_batch_must_split_over_the_devices():
  mesh = cluster.make_mesh()
  cluster.check_batch(16, mesh)
  with pytest.raises(UserError, match='batch_size=12 does not split over 8 devices'):
    cluster.check_batch(12, mesh)
