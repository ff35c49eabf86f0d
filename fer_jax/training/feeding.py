"""What the loop gives the devices: batches, placed ahead of it by a thread, or row numbers of splits that lie there."""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fer_jax.data.reading.ahead import in_order
from fer_jax.data.reading.mixture import Mixture
from fer_jax.runtime import cluster

LAYOUT = frozenset({'row', 'mask', 'triplet'})  # Fields that no split has.

AHEAD = 2  # Batches on the devices before the loop asks for them.

Take = Callable[[Any, Any], tuple[Any, Any]]  # Steps, from a state and a meter to those after.


def fields_read(traced: jax.stages.Traced, batch: Mapping[str, Any]) -> frozenset[str]:
  """Names of the fields of a step's last argument, ``batch``, that decide anything the step returns."""
  jaxpr = traced.jaxpr.jaxpr
  _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return frozenset(name for name, read in zip(sorted(batch), used[-len(batch):], strict=True) if read)


def chunks(start: int, total: int, most: int, every: Sequence[int]) -> Iterator[range]:
  """The steps from ``start`` to ``total`` in ranges of at most ``most``, cut at the multiples of each of ``every``."""
  while start < total:
    stop = min(total, start + most, *((start // one + 1) * one for one in every))
    yield range(start, stop)
    start = stop


def unread(batch: Mapping[str, jax.ShapeDtypeStruct], fields: Collection[str], mesh: Mesh) -> dict[str, jax.Array]:
  """Zeros on the devices for the fields of a batch that the step does not read: they are neither decoded nor sent."""
  like = {name: form for name, form in batch.items() if name not in LAYOUT | set(fields)}
  zeros = jax.jit(lambda: {name: jnp.zeros(form.shape, form.dtype) for name, form in like.items()},
                  out_shardings=NamedSharding(mesh, PartitionSpec(cluster.AXIS)))
  return zeros() if like else {}


def streamed(train_step: Callable[..., Any], frozen: Any, batches: Iterable[Mapping[str, np.ndarray]], start: int,
             absent: Mapping[str, jax.Array], mesh: Mesh) -> Iterator[tuple[range, Take]]:
  """One step after the other on host batches, without end."""
  for at, batch in enumerate(in_order(lambda batch: cluster.place(batch, mesh), batches, 1, AHEAD), start):
    yield range(at, at + 1), lambda state, meter, batch=batch: train_step(state, meter, frozen, {**batch, **absent})


def resident(train_step: Callable[..., Any], frozen: Any, mixture: Mixture, tables: Mapping[str, jax.Array],
             steps: Iterable[range], most: int, own: np.ndarray, absent: Mapping[str, jax.Array], mesh: Mesh
             ) -> Iterator[tuple[range, Take]]:
  """Steps on faces that lie on the devices: of each range in one dispatch, which carries row numbers alone.

  Args:
    tables: see ``Mixture.tables`` and ``cluster.place_table``.
    steps: ranges of at most ``most`` steps.
    own: this process's rows of a batch, int32 (b,).
    absent: of ``unread``.
  """
  take = resident_steps(train_step, mesh, alone=most == 1)
  fixed = {**cluster.place({'row': own, 'mask': np.ones(len(own), bool)}, mesh), **absent}

  def placed(chunk: range) -> dict[str, jax.Array]:
    numbers = np.arange(chunk.start, chunk.start + most)  # Those behind the chunk are not taken.
    faces, kinds = mixture.places(numbers, own)
    return cluster.place({'face': faces, 'triplet': kinds}, mesh, axis=1)

  for chunk, batch in in_order(lambda chunk: (chunk, placed(chunk)), steps, 1, AHEAD):
    yield chunk, functools.partial(take, frozen=frozen, tables=tables, fixed=fixed, count=len(chunk), **batch)


def resident_steps(train_step: Callable[..., Any], mesh: Mesh, alone: bool) -> Callable[..., tuple[Any, Any]]:
  """Compiles ``count`` steps on rows of ``tables``; state and meter are donated.

  The number of steps is an argument of a loop and not the length of a scan, so that one program serves every chunk. A
  step ``alone`` needs no loop, in which XLA on CPU would compute convolutions by one thread.
  """
  rows = NamedSharding(mesh, PartitionSpec(cluster.AXIS))

  def steps(state: Any, meter: Any, frozen: Any, tables: Any, fixed: Any, face: jax.Array, triplet: jax.Array,
            count: int) -> tuple[Any, Any]:
    def body(i: jax.Array, held: tuple[Any, Any]) -> tuple[Any, Any]:
      found = {name: table.at[face[i]].get(mode='promise_in_bounds') for name, table in tables.items()}
      found = jax.lax.with_sharding_constraint(found, rows)
      return train_step(*held, frozen, {**fixed, **found, 'triplet': triplet[i]})

    return body(0, (state, meter)) if alone else jax.lax.fori_loop(0, count, body, (state, meter))

  return jax.jit(steps, donate_argnums=(0, 1), out_shardings=cluster.replicated(mesh))


def fits(choice: str, size: int, mesh: Mesh) -> bool:
  """Whether tables of ``size`` bytes are to lie on the devices, by ``config.data.resident``."""
  if choice != 'auto':
    return choice != 'False'
  limits = [(device.memory_stats() or {}).get('bytes_limit', 0) for device in mesh.local_devices]
  return jax.default_backend() != 'cpu' and size <= min(limits) / 4
