"""Devices and processes: start-up, the mesh, placement, and the two forms of data parallelism."""

import functools
import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fer_jax.errors import UserError

AXIS = 'data'

# XLA's default CPU convolutions are slow backwards. Measured with jaxlib 0.10.2 only: other versions may not know the
# flag, and XLA aborts on a flag it does not know.
CPU_FLAGS = {'0.10.2': '--xla_cpu_experimental_ynn_fusion_type=-individual_convolution'}


def start() -> None:
  """Prepares this process; call it before the first use of a device.

  Adds the CPU flags of this jaxlib to ``XLA_FLAGS`` unless the variable already sets them or ``FER_JAX_CPU_FLAGS=0``.
  """
  flag = CPU_FLAGS.get(jaxlib.__version__)
  current = os.environ.get('XLA_FLAGS', '')
  if flag and flag.split('=')[0] not in current and os.environ.get('FER_JAX_CPU_FLAGS') != '0':
    os.environ['XLA_FLAGS'] = f'{current} {flag}'.strip()


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
  """A one-dimensional mesh over ``devices`` (default: all), along which batches are split."""
  devices = jax.devices() if devices is None else devices
  # Auto: with explicit axes linen's Dropout fails.
  return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


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


def place(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """Turns this process's rows of a batch into global arrays, split over the mesh along the first axis."""
  sharding = NamedSharding(mesh, PartitionSpec(AXIS))
  return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def check_batch(batch_size: int, mesh: Mesh, name: str = 'batch_size') -> None:
  """Raises UserError unless the global batch splits evenly over the devices."""
  if batch_size <= 0 or batch_size % mesh.size:
    raise UserError(f'config.{name}={batch_size} does not split over {mesh.size} devices; choose a multiple of that.')


def parallel(step: Callable[..., Any], mesh: Mesh, form: str) -> Callable[..., Any]:
  """Compiles ``step(state, meter, frozen, batch) -> (state, meter)`` for the mesh; state and meter are donated.

  Args:
    step: a pure function. In the 'pmap' form it sees its device's rows only and must sum over ``AXIS`` itself.
    mesh: the devices.
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
  devices = jax.devices()
  kind = devices[0].device_kind
  if devices[0].platform == 'cpu':
    kind = f'{platform.machine()} CPU, {os.cpu_count()} cores'
  plural = f' in {jax.process_count()} processes' if jax.process_count() > 1 else ''
  return f'{len(devices)} x {kind}{plural}'
