"""What a line of metrics.jsonl says of time, and what is left of the log when a run goes on."""

import functools
import json
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.runtime import cluster, scaling
from fer_jax.training import metrics_log

METER = {'loss': jnp.float32(6.0), 'accuracy': jnp.float32(1.5), 'steps': jnp.float32(3.0)}


@pytest.fixture
def clock(monkeypatch):
  """A clock that a test sets; what is dispatched is done when ``clock.done`` says so, one after the other."""
  clock = types.SimpleNamespace(now=0.0, done=[])
  monkeypatch.setattr(metrics_log, 'time', types.SimpleNamespace(perf_counter=lambda: clock.now))
  monkeypatch.setattr(metrics_log, '_when_done', lambda _: clock.done.pop(0))
  return clock


def take(window, clock, at, ends, **options):
  """Dispatches what ends at these times, the last of them when the meter is read, and returns the line."""
  clock.done += ends
  for _ in ends:
    window.dispatched(METER, **options)
  clock.now = ends[-1]
  return window.read(METER, at, batch_size=10)


def test_steps_are_timed_by_when_devices_have_done_them(clock):
  window = metrics_log.Window(0)
  values = take(window, clock, 3, [2.0, 3.0, 8.0])
  assert (values['step_seconds'], values['loss'], values['accuracy']) == (2.0, 2.0, 0.5)
  assert values['step_seconds_95'] == pytest.approx(np.percentile([2.0, 1.0, 5.0], 95))
  assert values['images_per_second'] == 30 / 8
  clock.now = 10.0  # The line is written.
  assert take(metrics_log.Window(3), clock, 9, [13.0, 22.0], steps=3)['step_seconds'] == 2.0


def test_waiting_is_a_share_and_pauses_are_left_out(clock):
  window = metrics_log.Window(0)
  with window.paused():
    clock.now = 100.0
  clock.done += [102.0, 104.0]
  with window.waiting():
    clock.now = 101.0
  window.dispatched(METER)
  window.dispatched(METER)
  clock.now = 104.0
  values = window.read(METER, 2, batch_size=10)
  assert (values['data_wait'], values['step_seconds'], values['images_per_second']) == (0.25, 2.0, 5.0)
  assert metrics_log.shown(values) == {'loss': '2.000', 'accuracy': '0.500', 'waiting': '25%'}


@pytest.mark.parametrize('done, share', [(20.0, 0.0), (14.0, 0.2), (5.0, 0.5)])
def test_devices_that_are_busy_do_not_wait(clock, done, share):
  window = metrics_log.Window(0)
  clock.done += [done, 20.0]
  window.dispatched(METER)
  clock.now = 8.0
  with window.waiting():
    clock.now = 18.0
  window.dispatched(METER)
  clock.now = 20.0
  assert window.read(METER, 2, batch_size=10)['data_wait'] == share


def test_device_hours_add_up_and_the_time_left_is_that_of_compiled_steps(clock):
  window = metrics_log.Window(100, total=200, devices=8, hours=3.0)
  first = take(window, clock, 110, [900.0, *range(901, 910)])
  assert first['device_hours'] == 3.0 + 8 * 909 / 3600 and first['eta_seconds'] == 90.0
  with window.paused():
    clock.now += 45.0
  second = take(window, clock, 120, [clock.now + 1.5 * i for i in range(1, 11)])
  assert second['device_hours'] == pytest.approx(3.0 + 8 * (909 + 15) / 3600)
  assert second['eta_seconds'] == pytest.approx(80 * (45 + 15) / 10)
  assert 'utilisation' not in second and second.keys() - METER.keys() <= set(metrics_log.TIMING)


def test_utilisation(clock):
  assert take(metrics_log.Window(0, ideal=0.5), clock, 4, [1.0, 2.0, 3.0, 10.0])['utilisation'] == 0.2


def test_a_thread_waits_for_the_devices_and_the_meter_may_be_donated():
  @functools.partial(jax.jit, donate_argnums=0)
  def slow(meter, x):
    y = jax.lax.fori_loop(0, 20, lambda _, y: jnp.tanh(y @ x), x)
    return {'loss': meter['loss'] + 0 * y[0, 0], 'accuracy': meter['accuracy'], 'steps': meter['steps'] + 1}

  x, mesh = jnp.ones((400, 400)), cluster.make_mesh(jax.devices()[:1])
  meter = slow(cluster.replicate(METER, mesh), x)
  one = min(timed(lambda: jax.block_until_ready(slow(cluster.replicate(METER, mesh), x))) for _ in range(3))
  window, began = metrics_log.Window(0), time.perf_counter()
  for _ in range(8):
    meter = slow(meter, x)
    window.dispatched(meter)
  values, elapsed = window.read(meter, 8, 1), time.perf_counter() - began
  assert 0.5 * one < values['step_seconds'] <= elapsed / 4  # The loop itself was through at once.


def timed(work):
  began = time.perf_counter()
  work()
  return time.perf_counter() - began


def test_the_ideal_step_is_one_of_all_devices_at_their_peak(monkeypatch):
  work = jax.jit(lambda a, b: a @ b)
  shapes = jax.ShapeDtypeStruct((64, 32), 'float32'), jax.ShapeDtypeStruct((32, 16), 'float32')
  assert metrics_log.ideal_seconds(work, shapes, 4, 'float32') is None  # Nobody knows a CPU's.
  monkeypatch.setitem(scaling.KINDS, jax.devices()[0].device_kind, 'H100')
  assert metrics_log.ideal_seconds(work, shapes, 4, 'float32') == pytest.approx(2 * 64 * 32 * 16 / (4 * 495e12))
  assert metrics_log.ideal_seconds(work, shapes, 4, 'float64') is None


def test_peaks_by_the_names_of_devices():
  assert scaling.peak('NVIDIA H200', 'bfloat16') == 989e12 and scaling.peak('TPU v5 lite', 'float32') == 197e12
  assert scaling.peak('cpu', 'float32') is None


def test_lines_of_steps_to_come_are_dropped_and_the_last_one_about_training_is_told(tmp_path):
  log = metrics_log.MetricsLog(tmp_path / 'metrics.jsonl')
  assert log.forget_after(3) == {}
  for at, kind in ((2, 'train'), (4, 'train'), (4, 'valid'), (6, 'train')):
    log.write(at, kind, {'device_hours': at / 4})
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 7, "ki')
  assert log.forget_after(5) == {'step': 4, 'kind': 'train', 'device_hours': 1.0}
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert [(line['step'], line['kind']) for line in lines] == [(2, 'train'), (4, 'train'), (4, 'valid')]
  assert log.forget_after(0) == {} and (tmp_path / 'metrics.jsonl').read_text() == ''
