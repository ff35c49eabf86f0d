"""Grain's random permutation, of all places at once.

Grain shuffles one index at a time, in Python: 6 microseconds each, too slow for faces that lie on the device already.
This is its ``index_shuffle`` in numpy, number by number, so that a seed's order is what it always was: a Feistel
network with the round function of the cipher Simon (IACR eprint 2013/404), applied until the result is in range, with
round keys from C++'s ``std::seed_seq``.
"""

import numpy as np

_ROUNDS = 4
_32_BITS = 0xFFFFFFFF


def permutation(count: int, seed: int) -> np.ndarray:
  """A permutation of 0 to ``count`` - 1, int64 (count,), which the 32 bits of ``seed`` decide."""
  if count == 1:
    return np.zeros(1, np.int64)
  half = max(8, (int(np.ceil(np.log2(count - 1))) + 1) // 2)  # Bits of a half of an encrypted number.
  mask = np.uint32(2**half - 1)
  numbers = np.arange(4**half, dtype=np.uint32)
  left, right = numbers >> np.uint32(half), numbers & mask
  keys = np.array(_round_keys(seed), np.uint32) & mask
  for first, second in zip(keys[::2], keys[1::2], strict=True):
    left = left ^ _mix(right, half, mask) ^ first
    right = right ^ _mix(left, half, mask) ^ second
  encrypted = (left << np.uint32(half) | right).astype(np.int64)
  # What is out of range is encrypted again: one step, then two, four, eight at a time.
  onward = np.where(numbers < count, numbers, encrypted)
  found = encrypted[np.arange(count) % len(encrypted)]
  while (found >= count).any():
    found, onward = onward[found], onward[onward]
  return found


def _mix(x: np.ndarray, half: int, mask: np.uint32) -> np.ndarray:
  """Simon's round function of words of ``half`` bits."""
  turned = lambda by: (x << np.uint32(by) | x >> np.uint32(half - by)) & mask
  return turned(1) & turned(8) ^ turned(2)


def _round_keys(seed: int) -> list[int]:
  """The first four numbers of C++'s ``std::seed_seq{seed}``, by the algorithm in its standard ([rand.util.seedseq])."""
  words = [0x8B8B8B8B] * _ROUNDS
  for k in range(2 * _ROUNDS):
    at, after, next_but_one, before = ((k + by) % _ROUNDS for by in (0, 1, 2, -1))
    if k < _ROUNDS:
      mixed = words[at] ^ words[after] ^ words[before]
      mixed = 1664525 * (mixed ^ mixed >> 27) & _32_BITS
      own = mixed + (1, 1 + seed, 2, 3)[at] & _32_BITS
      words[after], words[next_but_one] = words[after] + mixed & _32_BITS, words[next_but_one] + own & _32_BITS
    else:
      mixed = words[at] + words[after] + words[before] & _32_BITS
      mixed = 1566083941 * (mixed ^ mixed >> 27) & _32_BITS
      own = mixed - at & _32_BITS
      words[after], words[next_but_one] = words[after] ^ mixed, words[next_but_one] ^ own
    words[at] = own
  return words
