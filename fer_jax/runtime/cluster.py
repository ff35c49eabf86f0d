"""Devices and processes: start-up, the mesh, placement, what processes agree on, and preemption.

Every process runs the same program on its own rows of each batch, by JAX's multi-controller runtime.
"""

import contextlib
import ctypes
import functools
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fer_jax.errors import UserError, listed
from fer_jax.runtime import console, devices
from fer_jax.runtime.rendezvous import meet

AXIS = 'data'

_PLACE = [0, 1]  # The number of this process, and how many there are.

# Exit status after SIGTERM with the state saved: the same command goes on from there. After Ctrl-C it is 130, as in a
# shell, so that what starts trainings again leaves this one alone.
PREEMPTED = 75

# What is added to XLA_FLAGS, by platform and version of jaxlib, because XLA aborts on a flag it does not know. This is
# the one place for flags that matter: what is not measured is not here. launch/README.md names some for GPU and TPU.
# The default convolutions of the CPU are slow backwards: a ResNet-18 step takes 1.4 to 1.6 times as long.
XLA_FLAGS = dict.fromkeys([('cpu', '0.10.2'), ('cpu', '0.12.0.1')],
                          '--xla_cpu_experimental_ynn_fusion_type=-individual_convolution')

# glibc's mallopt on CPU: no mapping of its own for a large block (M_MMAP_MAX), none given back (M_TRIM_THRESHOLD), one
# arena. XLA takes and frees its temporaries at every step, and the kernel would make new pages for them each time: a
# ResNet-18 step then takes 0.84 to 0.92 times as long. The process keeps the memory of its largest moment.
MALLOC = {-4: 0, -1: -1, -8: 1}


def start(coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None,
          timeout: float = 300.0) -> None:
  """Prepares this process and joins it to the others; call it before the first use of a device.

  Adds the flags of this platform and jaxlib to ``XLA_FLAGS`` unless the variable already sets them, and on CPU lets the
  process keep its memory (``MALLOC``); neither with ``FER_JAX_CPU_FLAGS=0``. What arguments leave open JAX finds out
  under SLURM (``srun``), Open MPI (``mpirun``), on TPU VMs and in Kubernetes (with its package). Where there is nothing
  to find, this is the only process.

  Args:
    coordinator_address: 'host:port' of process 0.
    num_processes: how many there are; 1 alone: this one, whatever is around it.
    process_id: from 0 to ``num_processes`` - 1.
    timeout: seconds to wait for the others.

  Raises:
    UserError: an argument is missing or wrong, or a process did not come in time; the message says which.
  """
  usual = 'accelerator' if devices.may_be_others() else 'cpu'
  flag = XLA_FLAGS.get((usual, jaxlib.__version__))
  current = os.environ.get('XLA_FLAGS', '')
  tuned = os.environ.get('FER_JAX_CPU_FLAGS') != '0'
  if flag and flag.split('=')[0] not in current and tuned:
    os.environ['XLA_FLAGS'] = f'{current} {flag}'.strip()
  if usual == 'cpu' and tuned and hasattr(library := ctypes.CDLL(None), 'mallopt'):
    for option, value in MALLOC.items():
      library.mallopt(option, value)
  if num_processes == 1 and not coordinator_address and not process_id:
    return
  given = (coordinator_address or os.environ.get('JAX_COORDINATOR_ADDRESS'), num_processes, process_id)
  # JAX would leave devices to local processes one by one where it detects them, so explicit arguments are not detected.
  address, count, process, local = (*given, None) if None not in given else _detect(given, timeout)
  if (address, count, process) == (None, None, None):
    return
  flags = {'--coordinator_address': address, '--num_processes': count, '--process_id': process}
  if missing := [name for name, value in flags.items() if value is None]:
    raise UserError(f"{listed(missing)} must be given too: nothing around this process says how many there are and "
                    'where. (SLURM, Open MPI, TPU VMs and Kubernetes do, where processes are started by srun, mpirun '
                    'or the platform.)')
  if not 0 <= process < count:
    raise UserError(f'--process_id={process}: of --num_processes={count} the numbers are 0 to {count - 1}.')
  _bypass_proxy(address)
  # Whoever is started by hand inside of a job should not wonder for minutes; of many only the first speaks at once.
  waiting = threading.Timer(5 * bool(process), lambda: print(
      f'note: waits up to {timeout:g} s for all {count} processes at {address}, as what is around this one (number '
      f'{process}) says: SLURM, MPI or the platform. --num_processes=1 runs it alone.', file=sys.stderr, flush=True))
  waiting.daemon = True
  if None in given and count > 1:
    waiting.start()
  try:
    meet(address, count, process, timeout)
  finally:
    waiting.cancel()
  _PLACE[:] = process, count
  jax.distributed.initialize(address, count, process, local, cluster_detection_method='deactivate',
                             initialization_timeout=round(timeout))


def _bypass_proxy(address: str) -> None:
  """Tells gRPC, and nothing else, to reach process 0 without the proxy that a user has for the internet."""
  if any(os.environ.get(name) for name in ('grpc_proxy', 'https_proxy', 'http_proxy')):
    others = os.environ.get('no_grpc_proxy') or os.environ.get('no_proxy')
    os.environ['no_grpc_proxy'] = ','.join(filter(None, [address.rpartition(':')[0].strip('[]'), others]))


def _detect(given: tuple[str | None, int | None, int | None], timeout: float) -> tuple[Any, Any, Any, Any]:
  """JAX's own detection of what is not given: address, count, number, local devices."""
  # Not public, but what jax.distributed.initialize calls (0.10 to 0.12): the rendezvous needs its answer beforehand.
  from jax._src.clusters import ClusterEnv
  local = list(map(int, filter(None, os.environ.get('JAX_LOCAL_DEVICE_IDS', '').split(',')))) or None
  try:
    return ClusterEnv.auto_detect_unset_distributed_params(*given, local, None, round(timeout))
  except (RuntimeError, ValueError) as error:
    raise UserError(f'start-up: a cluster is there, but JAX cannot make out its processes: {error}. Give '
                    '--coordinator_address, --num_processes and --process_id.') from error


def is_main() -> bool:
  """Whether this is process 0, the one that prints and writes everything but checkpoints."""
  return jax.process_index() == 0


def make_mesh(over: list[jax.Device] | None = None) -> Mesh:
  """A one-dimensional mesh over some devices (default: all), along which batches are split."""
  # By process, so that the rows of one process are neighbours; jax.make_mesh may order a slice otherwise.
  over = sorted(devices.find() if over is None else over, key=lambda d: (d.process_index, d.id))
  # Auto: with explicit axes linen's Dropout fails.
  return Mesh(np.array(over), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of the state: a copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Copies a pytree of host or device arrays onto every device."""
  return _copier(replicated(mesh))(tree)


@functools.cache
def _copier(sharding: NamedSharding) -> Callable[[Any], Any]:
  # A copy, not device_put: the result will be donated, and must not share buffers with its source.
  return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=sharding)


def place(batch: Mapping[str, np.ndarray], mesh: Mesh, axis: int = 0) -> dict[str, jax.Array]:
  """Turns this process's rows of a batch, along ``axis``, into global arrays, whose rows are split over the mesh."""
  sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))
  if jax.process_count() == 1:
    return jax.device_put(dict(batch), sharding)
  return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def place_table(table: Mapping[str, np.ndarray], mesh: Mesh, split: bool) -> dict[str, jax.Array]:
  """Turns arrays (N, ...) that every process can read into a copy on every device, or with ``split`` a share of rows.

  Shares are equal: behind the last row there are zeros.
  """
  if not split:
    return {name: jax.make_array_from_callback(rows.shape, replicated(mesh), rows.__getitem__)
            for name, rows in table.items()}
  sharding = NamedSharding(mesh, PartitionSpec(AXIS))

  def share(rows: np.ndarray, index: tuple[slice, ...]) -> np.ndarray:
    found = rows[index]
    lacking = index[0].stop - index[0].start - len(found)
    return np.concatenate([found, np.zeros((lacking, *rows.shape[1:]), rows.dtype)]) if lacking else found

  length = lambda rows: -(-len(rows) // mesh.size) * mesh.size
  return {name: jax.make_array_from_callback(
      (length(rows), *rows.shape[1:]), sharding, functools.partial(share, rows)) for name, rows in table.items()}


def shapes(tree: Any, mesh: Mesh, *, rows: bool = False) -> Any:
  """Shapes and types of what ``replicate`` makes of a tree, or ``place`` of one with ``rows``.

  What is traced with them need not be traced again for the arrays.
  """
  sharding = NamedSharding(mesh, PartitionSpec(AXIS) if rows else PartitionSpec())
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def own_rows(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """This process's rows of a global batch that every process holds whole."""
  n, i = jax.process_count(), jax.process_index()
  return {name: rows[i * len(rows) // n:(i + 1) * len(rows) // n] for name, rows in batch.items()}


def check_batch(batch_size: int, mesh: Mesh, name: str = 'batch_size') -> None:
  """Raises UserError unless the global batch splits evenly over the devices."""
  if batch_size <= 0 or batch_size % mesh.size:
    raise UserError(f'config.{name}={batch_size} does not split over {mesh.size} devices; choose a multiple of that.')


def parallel(step: Callable[..., Any], mesh: Mesh, form: str) -> Callable[..., Any]:
  """Compiles ``step(state, meter, frozen, batch) -> (state, meter)`` for the mesh; state and meter are donated.

  Args:
    step: a pure function. In the 'pmap' form it sees its device's rows only and must sum over ``AXIS`` itself.
    form: 'jit' (the compiler splits one global program) or 'pmap' (one program per device, ``jax.pmap``'s meaning).
  """
  if form == 'pmap':
    rows, copies = PartitionSpec(AXIS), PartitionSpec()
    # check_vma=False keeps pmap's rule that gradients are local until summed; with True they would come summed already.
    step = jax.shard_map(step, mesh=mesh, in_specs=(copies, copies, copies, rows), out_specs=copies, check_vma=False)
  elif form != 'jit':
    raise UserError(f"config.parallel='{form}': choose 'jit' or 'pmap'.")
  return jax.jit(step, donate_argnums=(0, 1), out_shardings=replicated(mesh))


@functools.cache
def hardware() -> str:
  """The devices in words, as tables name them."""
  first = jax.devices()[0]
  kind = f'{platform.machine()} CPU, {os.cpu_count()} cores' if first.platform == 'cpu' else first.device_kind
  plural = f' in {jax.process_count()} processes' if jax.process_count() > 1 else ''
  return f'{jax.device_count()} x {kind}{plural}'


def banner(mesh: Mesh) -> str:
  """One line about the machine: processes, devices, mesh, and whether a better device lies idle."""
  count, fallen = jax.process_count(), devices.fallback()
  return (f"{count} process{'es' if count > 1 else ''}, {hardware()}, mesh {dict(mesh.shape)}"
          f"{f'; {fallen}' if fallen else ''}")


def say(text: str) -> None:
  """Prints on process 0."""
  if is_main():
    print(console.plain(text), flush=True)


def gather(text: str) -> list[str]:
  """What every process says, in their order, to every process. All of them must call this."""
  if jax.process_count() == 1:
    return [text]
  mine = np.frombuffer(text.encode(), np.uint8)
  lengths = multihost_utils.process_allgather(np.int32(len(mine)))
  padded = np.zeros(lengths.max(), np.uint8)
  padded[:len(mine)] = mine
  rows = multihost_utils.process_allgather(padded)
  return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]


@contextlib.contextmanager
def together() -> Iterator[None]:
  """What fails by a UserError in one process inside of this fails in all, so that none waits for another in vain."""
  mine = ''
  try:
    yield
  except UserError as error:
    mine = str(error)
  said = gather(mine)
  if any(said):
    raise UserError(mine if len(set(said)) == 1 else '; '.join(
        f'process {process}: {message}' for process, message in enumerate(said) if message))


def once(action: Callable[[], Any]) -> Any:
  """Runs ``action`` on process 0; all processes get its result, which JSON must be able to hold, or its UserError."""
  result = None
  with together():
    if is_main():
      result = action()
  return json.loads(gather(json.dumps(result))[0]) if jax.process_count() > 1 else result


def check_same(what: str, value: str) -> None:
  """Raises UserError on all processes unless ``value`` is the same on all; ``what`` names it."""
  values = gather(value)
  if differing := [process for process, other in enumerate(values) if other != values[0]]:
    raise UserError(f'{what} of process {listed(differing)} is not that of process 0: start all processes with the '
                    'same command, code and data.')


def abandon(status: int, message: str) -> None:
  """Where there are other processes, prints ``message`` and ends this one at once.

  A normal exit would wait for the others, while they wait for this one in the middle of a step.
  """
  number, count = _PLACE  # JAX can tell only where it has found devices.
  if jax.distributed.is_initialized() and count > 1:
    print(console.plain(f'process {number} of {count}: {message}'), file=sys.stderr, flush=True)
    sys.stdout.flush()
    if not number:
      time.sleep(2)  # All end with process 0: let those that failed in the same way say so.
    os._exit(status)
