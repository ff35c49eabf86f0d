"""What a step sends between devices, counted in the compiled program, and what that would cost on many devices.

``collectives`` counts. All the rest is a model on paper: published figures, assumptions, and no measurement. It says
where the limits lie, not how fast a machine is. Its assumptions:

- Weak scaling: the rows of a batch on each device stay the same, and so do its FLOPs.
- Computing takes FLOPs / (utilisation x peak). Memory, input and the host are in the utilisation, which is a guess.
- An all-reduce of S bytes over n devices takes 2 (n - 1) / n S / bandwidth, what no algorithm can beat (Patarasuk and
  Yuan, J. Parallel Distrib. Comput. 69(2), 2009, section 3; a ring attains it), plus a latency for each hop.
- Over several nodes or slices of m devices: reduce-scatter inside, all-reduce of S / m by every device between, gather
  inside. Links are there for this job alone, and all of them are used.
- The gradients travel together. At best they hide behind the backward pass, two thirds of the computing, which takes a
  compiler that sends them in several pieces. All others, the sums of BatchNorm, are waited for one by one.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

_KINDS = 'all-reduce|all-gather|reduce-scatter|collective-permute|collective-broadcast|ragged-all-to-all|all-to-all'
# '%name = TYPE kind(operands)'; of an asynchronous pair the end, whose type is the result's alone.
_COLLECTIVE = re.compile(rf'= (\(.*?\)|\S+) ({_KINDS})(?:-done)?\(')
_ARRAY = re.compile(r'\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]')

BACKWARD = 2 / 3  # Of the computing of a step.


@dataclasses.dataclass(frozen=True)
class Total:
  """How many collectives of a kind there are, and the bytes of all their results on one device."""

  count: int
  size: int


@dataclasses.dataclass(frozen=True)
class Network:
  """What joins devices.

  Attributes:
    bandwidth: bytes a second that leave one device, in one direction.
    latency: seconds per hop; assumed.
    dimensions: of a torus; 0 for switches.
  """

  bandwidth: float
  latency: float
  dimensions: int = 0

  def hops(self, devices: int) -> float:
    """Hops of an all-reduce: there and back along each ring of a torus, half of it each way; or up and down a tree."""
    if self.dimensions:
      return self.dimensions * devices ** (1 / self.dimensions)
    return 2 * math.ceil(math.log2(devices))


@dataclasses.dataclass(frozen=True)
class Hardware:
  """A kind of device, by its published figures.

  Attributes:
    peak: {dtype of the computation: FLOPs a second}.
    group: devices of a slice or node at most.
    inside: what joins those.
    between: what joins slices or nodes.
  """

  peak: Mapping[str, float]
  group: int
  inside: Network
  between: Network


# Published, except for latencies. TPUs multiply float32 in one pass of bfloat16 unless told otherwise, so they have one
# peak. Bandwidths are published for both directions together, here is half of it.
HARDWARE = {
    # cloud.google.com/tpu/docs/v5e: 197 TFLOPs, 400 GB/s of ICI, slices of up to 256 in a 2-D torus; 6.4 Tb/s of data
    # center network for these.
    'v5e': Hardware({'bfloat16': 197e12, 'float32': 197e12}, 256, Network(200e9, 1e-6, 2),
                    Network(6.4e12 / 8 / 256, 25e-6)),
    # cloud.google.com/tpu/docs/v5p: 459 TFLOPs, 1,200 GB/s of ICI, slices of up to 6,144 in a 3-D torus; 50 Gb/s of
    # data center network for each.
    'v5p': Hardware({'bfloat16': 459e12, 'float32': 459e12}, 6144, Network(600e9, 1e-6, 3), Network(50e9 / 8, 25e-6)),
    # NVIDIA's H100 and DGX H100 data sheets, SXM: 989 TFLOPs (TF32 495, which JAX takes for float32) without sparsity,
    # 900 GB/s of NVLink in nodes of 8, 400 Gb/s of InfiniBand for each.
    'H100': Hardware({'bfloat16': 989e12, 'float32': 495e12}, 8, Network(450e9, 2e-6), Network(400e9 / 8, 5e-6)),
}

# By JAX's names, ``device_kind``. An H200 is an H100 with other memory.
KINDS = {'TPU v5 lite': 'v5e', 'TPU v5e': 'v5e', 'TPU v5': 'v5p', 'TPU v5p': 'v5p', 'NVIDIA H100 80GB HBM3': 'H100',
         'NVIDIA H200': 'H100'}


def peak(device_kind: str, dtype: str) -> float | None:
  """FLOPs a second that a device of this kind attains at most in computations of ``dtype``; None if nobody knows."""
  return HARDWARE[KINDS[device_kind]].peak.get(dtype) if device_kind in KINDS else None


@dataclasses.dataclass(frozen=True)
class Step:
  """A compiled step on one device.

  Attributes:
    flops: of a device, with its rows of the batch.
    dtype: of the computation.
    parameters: their number, float32.
    reduced: its all-reduces.
  """

  flops: float
  dtype: str
  parameters: int
  reduced: Total


def collectives(hlo: str) -> dict[str, Total]:
  """Counts the collectives of a program, ``compiled.as_text()``, by kind; what lies in a loop counts once."""
  sizes: dict[str, list[int]] = {}
  for shapes, kind in _COLLECTIVE.findall(hlo):
    sizes.setdefault(kind, []).append(sum(math.prod(int(n) for n in shape.split(',') if n) * int(bits or 8) // 8
                                          for _, bits, shape in _ARRAY.findall(shapes)))
  return {kind: Total(len(found), sum(found)) for kind, found in sizes.items()}


def all_reduce_seconds(reduced: Total, devices: int, hardware: Hardware) -> float:
  """Time of these all-reduces one after the other."""
  inside = min(devices, hardware.group)
  groups = math.ceil(devices / inside)
  seconds = 0.0
  for n, size, network in ((inside, reduced.size, hardware.inside), (groups, reduced.size / inside, hardware.between)):
    if n > 1:
      seconds += 2 * (n - 1) / n * size / network.bandwidth + reduced.count * network.hops(n) * network.latency
  return seconds


def efficiency(step: Step, devices: int, hardware: Hardware, utilisation: float, overlap: bool) -> float:
  """The share of a step's time that computes: speed on so many devices over so many times the speed of one.

  Computing attains the share ``utilisation`` of the peak, in (0, 1]; with ``overlap`` gradients travel during the
  backward pass.
  """
  computing = step.flops / (utilisation * hardware.peak[step.dtype])
  gradients = Total(1, min(4 * step.parameters, step.reduced.size))
  others = Total(step.reduced.count - 1, step.reduced.size - gradients.size)
  hidden = BACKWARD * computing if overlap else 0.0
  waiting = max(0.0, all_reduce_seconds(gradients, devices, hardware) - hidden)
  return computing / (computing + waiting + all_reduce_seconds(others, devices, hardware))
