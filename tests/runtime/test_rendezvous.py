"""The rendezvous: everybody learns that all are there, or who is missing, within the time limit."""

import concurrent.futures
import socket
import threading

import pytest

from fer_jax.errors import UserError
from fer_jax.runtime.rendezvous import meet
from tests.processes import free_port


def call_all(processes, count, timeout=20.0):
  """What becomes of each process that calls: None or its error."""
  address = f'localhost:{free_port()}'

  def one(process):
    try:
      return meet(address, count, process, timeout)
    except UserError as error:
      return str(error)

  with concurrent.futures.ThreadPoolExecutor(len(processes)) as pool:
    return address, list(pool.map(one, processes))


@pytest.mark.parametrize('count', [1, 2, 7])
def test_all_are_there(count):
  # The last first, so that some call before process 0 listens.
  assert call_all(list(range(count))[::-1], count)[1] == [None] * count


def test_the_port_is_free_again_for_jax():
  address, outcome = call_all([1, 0], 2)
  with socket.create_server(('', int(address.rpartition(':')[2]))):
    assert outcome == [None, None]


def test_everybody_is_told_who_is_missing():
  address, outcome = call_all([0, 2], 4, timeout=1.5)
  assert len(set(outcome)) == 1
  assert outcome[0].startswith(f'start-up: after 1.5 s processes 1 and 3 of 4 are missing at {address}. Look into')


def test_process_0_is_missing():
  address, (message,) = call_all([1], 2, timeout=0.5)
  assert f'process 1 has not reached process 0 at {address} within 0.5 s (Connection refused)' in message


def test_what_is_no_process_does_not_count():
  port = free_port()
  done = threading.Event()

  def scan():
    while not done.is_set():
      try:
        with socket.create_connection(('localhost', port), timeout=1) as stranger:
          stranger.sendall(b'GET / HTTP/1.0\r\n\r\n')
          done.wait(0.05)
      except OSError:
        done.wait(0.01)

  stranger = threading.Thread(target=scan)
  stranger.start()
  try:
    with pytest.raises(UserError, match='process 1 of 2 is missing'):
      meet(f'localhost:{port}', 2, 0, 0.7)
  finally:
    done.set()
    stranger.join()


def test_a_port_in_use_is_named():
  with socket.create_server(('', 0)) as other:
    port = other.getsockname()[1]
    with pytest.raises(UserError, match=f'cannot listen at port {port}: Address already in use. Is another run'):
      meet(f'localhost:{port}', 2, 0, 1.0)


def test_two_processes_with_one_number():
  # The second takes the place of the first; the one whose number nobody has is missing.
  _, outcome = call_all([0, 1, 1], 3, timeout=1.5)
  assert 'process 2 of 3 is missing' in outcome[0] and 'each with a number of its own' in outcome[0]


@pytest.mark.parametrize('address', ['localhost', 'localhost:', ':8476', 'localhost:http'])
def test_an_address_without_host_or_port(address):
  with pytest.raises(UserError, match='give HOST:PORT of process 0'):
    meet(address, 2, 0, 1.0)
