"""Rendezvous at start-up: who is there, and who is missing, before JAX waits for everybody.

JAX's own start-up ends a process without a word about the others when one of them does not come. Here every process
first reports to process 0, on the very address that JAX will use, and process 0 answers all of them at once with the
numbers of those who are missing.
"""

import contextlib
import json
import os
import selectors
import socket
import time

from fer_jax.errors import UserError, listed

_RETRY = 0.2  # Seconds between attempts to reach process 0.


def meet(address: str, count: int, process: int, timeout: float) -> None:
  """Returns in every process once all ``count`` of them have called.

  Args:
    address: 'host:port' of process 0, as its peers reach it.
    process: the number of this one, from 0.
    timeout: seconds to wait, the same for all.

  Raises:
    UserError: some are missing, or process 0 cannot be reached; the message says what to check.
  """
  host, _, port = address.rpartition(':')
  if not host or not port.isdecimal():
    raise UserError(f"--coordinator_address={address}: give HOST:PORT of process 0, such as 10.0.0.2:8476.")
  deadline = time.monotonic() + timeout
  missing = (_report(host.strip('[]'), int(port), process, deadline, timeout) if process else
             _receive(int(port), count, deadline))
  if missing:
    plural, verb = ('', 'is') if len(missing) == 1 else ('es', 'are')
    raise UserError(
        f'start-up: after {timeout:g} s process{plural} {listed(missing)} of {count} {verb} missing at {address}. Look '
        f'into their logs; check that all were started with the same address and number of processes ({count}), each '
        f'with a number of its own, and that port {port} of that host is open to them.')


def _receive(port: int, count: int, deadline: float) -> list[int]:
  """Process 0: waits for the others, tells them who is missing, and returns it."""
  callers: dict[int, socket.socket] = {}
  both = socket.has_dualstack_ipv6()
  try:
    server = socket.create_server(('', port), backlog=count, dualstack_ipv6=both,
                                  family=socket.AF_INET6 if both else socket.AF_INET)
  except OSError as error:
    raise UserError(f'start-up: process 0 cannot listen at port {port}: {os.strerror(error.errno)}. Is another run '
                    'using it? Choose another port in --coordinator_address.') from error
  with server, selectors.DefaultSelector() as selector:
    selector.register(server, selectors.EVENT_READ)
    while len(callers) < count - 1 and (left := deadline - time.monotonic()) > 0:
      for _ in selector.select(left):
        caller = server.accept()[0]
        caller.settimeout(5)
        try:
          callers[int(caller.makefile().readline())] = caller
        except (OSError, ValueError):
          caller.close()  # A port scan, or a process that died at once.
    missing = sorted(set(range(1, count)) - callers.keys())
    for caller in callers.values():
      with caller, contextlib.suppress(OSError):  # It will notice by itself.
        caller.sendall(json.dumps(missing).encode() + b'\n')
        caller.recv(1)  # It closes first, so that the port is free at once.
  return missing


def _report(host: str, port: int, process: int, deadline: float, timeout: float) -> list[int]:
  """Another process: reports to process 0 and returns who it says is missing."""
  reason = 'no answer'
  while time.monotonic() < deadline:
    try:
      with socket.create_connection((host, port), timeout=5) as call:
        call.sendall(f'{process}\n'.encode())
        # Process 0 answers at its own deadline, which may be a little later than ours.
        call.settimeout(max(deadline - time.monotonic(), 0) + 30)
        if answer := call.makefile().readline():
          return json.loads(answer)
    except (OSError, ValueError) as error:
      reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
    time.sleep(_RETRY)
  raise UserError(f'start-up: process {process} has not reached process 0 at {host}:{port} within {timeout:g} s '
                  f'({reason}). Check that process 0 was started and what its log says, that the name resolves to its '
                  f'host from here, and that port {port} is open.')
