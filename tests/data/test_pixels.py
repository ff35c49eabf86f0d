"""The pixels of a record."""

import numpy as np

from fer_jax.data import pixels


def test_digests_tell_images_apart_by_every_pixel_and_their_shape():
  rng = np.random.default_rng(0)
  one, other, wide = (rng.integers(0, 256, shape, np.uint8) for shape in ((6, 6), (6, 6), (4, 9)))
  nearly, coloured = one.copy(), np.repeat(one[..., None], 3, 2)
  nearly[3, 3] ^= 1
  coloured[0, 0, 2] ^= 1
  images = [one, other, wide, nearly, coloured, wide.reshape(9, 4)]
  assert len({int(pixels.digest(image)) for image in images}) == len(images)
  # The same grey picture, once stored as RGB.
  assert pixels.digest(np.repeat(one[..., None], 3, 2)) == pixels.digest(one)
