"""Are a run's explanations faithful? Deletion and insertion curves on the devices, and what is written about them.

Maps, rankings, perturbed faces and forward passes are one compiled function of a batch, so that faces travel to the
devices once and as bytes. It is deterministic: pixels of equal rank are ordered by random numbers that belong to the
face.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.analysis import randomisation
from fer_jax.attribution.priors import SOURCES, prior_map
from fer_jax.data import augment
from fer_jax.errors import UserError
from fer_jax.metrics import action_units, alignment
from fer_jax.metrics import faithfulness as metrics
from fer_jax.runtime import cluster, storage
from fer_jax.training import evaluation, setup, step
from fer_jax.training.protocol import describe
from fer_jax.training.workdir import read_finished

# Maps that know nothing of the network, by the name of the prior that they are; 'uniform' is a random order of pixels.
BASELINES = {'uniform': 'uniform', 'centred_gaussian': 'centred_gaussian', 'landmarks': 'landmark'}

# The baselines that maps are told to have beaten or not: those that know nothing of the face either.
BARS = ('uniform', 'centred_gaussian')

# Standard deviation of the blur that insertion starts from, as a share of the image side. RISE's code has 5 pixels cut
# at 11 for objects at 224; of a face of 48 pixels that would leave every expression readable.
BLUR = 0.1

_LEVELS = 65_535  # A map's range has so many steps, since resizing rounds, and equal values must stay equal.


def explain_run(workdir: Any, split: str | None = None, *, faces: int = 500, steps: int = 16,
                data_dir: str | None = None) -> dict[str, Any]:
  """Measures how faithful the maps of ``config.explain`` are and writes ``WORKDIR/explanations/<split>.json``.

  Beside it ``<split>.npz`` has the curves of every face: 'deletion' and 'insertion' (M, N, steps + 1) float32, 'maps'
  the names (M,) of the config's maps and then the baselines, 'shares' (steps + 1,) of the pixels, and 'row' (N,), the
  face's row in the split.

  Args:
    split: as in ``evaluation.evaluate_run``, and so is ``data_dir``.
    faces: how many at most; they are evenly spaced over the split, whatever the network makes of them.
    steps: portions in which the pixels of a face go and come.

  Returns:
    The content of the JSON file.

  Raises:
    UserError: no run, an unfinished one, no maps or no split, bad numbers, or a network that mixes the faces of a
      batch.
  """
  for name, value, least in (('faces', faces, 1), ('steps', steps, 2)):
    if value < least:
      raise UserError(f'--{name}={value}: give a number from {least} up.')
  record, mesh = read_finished(workdir), cluster.make_mesh()
  trained = setup.load(workdir, mesh, data_dir=data_dir)
  protocol = trained.protocol
  if not trained.system.explain:
    raise UserError(f'the run in {workdir} has no maps to explain (config.explain is empty).')
  if protocol.batch_mean:
    raise UserError("config.model.head.global_mean='batch': an answer depends on the other faces of its batch, so no "
                    "face has a curve of its own; train with 'running', which learns the same parameters.")
  split = split or protocol.data.test
  source = evaluation.open_split(trained, split)
  chosen = action_units.evenly(len(source), faces)
  picked = dataclasses.replace(source, records=[source.records[row] for row in chosen.tolist()])  # Still encoded.
  # Each face is two images: so no pass holds more of them than one of an evaluation.
  rows = min(max(protocol.eval_batch_size // 2 // mesh.size, 1), -(-len(chosen) // mesh.size)) * mesh.size
  cluster.say(f'{len(chosen):,} of {len(source):,} faces of {split}, {steps} steps, {rows} faces at a time.')
  table = evaluation.outputs_of(make_evaluator(trained.system, steps, mesh), trained.variables, picked, rows, mesh)
  side = trained.system.recipe.image_size if trained.system.recipe.regions is None else source.size
  shares = metrics.portions(side**2, steps) / side**2
  maps, baselines = ({name.removeprefix(kind): dict(zip(metrics.SIGNS, np.moveaxis(values, 2, 0), strict=True))
                      for name, values in table.items() if name.startswith(kind)} for kind in ('map/', 'baseline/'))
  bars = {name: baselines[name] for name in BARS}
  result = evaluation.stamp(trained) | {
      'protocol': describe(protocol, record, trained.seen(), source, split) | {
          'faces': len(chosen), 'of': len(source), 'steps': steps, 'pixels': [side, side],
          'deletion_to': "the mean colour of the face's image", 'insertion_from': 'the face under a Gaussian blur, '
          f'standard deviation {BLUR:g} of its side', 'probability_of': 'the class predicted for the whole face',
          'seeds_of_random_parameters': randomisation.seeds(protocol.seed)},
      'shares': shares.tolist(),
      'maps': metrics.summarise_curves(shares, maps, bars),
      'baselines': metrics.summarise_curves(shares, baselines, bars),
      'ends': {name: float(table[name].mean()) for name in ('whole', 'deleted', 'blurred')},
      'without_landmarks': int((table['landmark_heatmap'].max(axis=(1, 2)) == 0).sum())
                           if 'landmark_heatmap' in table else len(chosen),
      'randomised': randomisation.cascade(trained, picked, rows, mesh)}
  path = storage.as_path(workdir) / 'explanations' / f'{split}.json'
  storage.write_json(path, result)
  every = [*maps.items(), *baselines.items()]
  storage.write_npz(path.with_suffix('.npz'), maps=np.array([name for name, _ in every]), shares=shares, row=chosen,
                    **{kind: np.stack([curve[kind] for _, curve in every]) for kind in metrics.SIGNS})
  return result


def make_evaluator(system: setup.System, steps: int, mesh: jax.sharding.Mesh) -> Callable[..., dict[str, Any]]:
  """``curves`` compiled for the batches of a run, with what ``evaluation.outputs_of`` asks of a batch."""
  def evaluate(variables: Mapping[str, Any], batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    kept = {name: batch[name] for name in ('row', 'mask', 'landmark_heatmap') if name in batch}
    return curves(system.recipe, system.explain, steps, variables, batch) | kept

  return jax.jit(evaluate, out_shardings=cluster.replicated(mesh))


def curves(recipe: step.Recipe, explain: Mapping[str, Mapping[str, Any]], steps: int, variables: Mapping[str, Any],
           batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """Deletion and insertion curves of every face of a batch, for every map and baseline.

  Pixels are those of the image that the network sees, after ``augment.resize`` and before ``augment.normalise``; where
  it sees regions of a face they are those of the stored image, which the regions are cut from, so that a pixel goes
  from all regions at once. A portion are the pixels of the largest values of the map, with their sign, resized
  bilinearly. Deletion puts the image's mean colour in their place; insertion brings them back into the blurred image.

  Args:
    explain: {name: keyword arguments of ``tap_map``}.
    variables: {'params', 'batch_stats'}.
    batch: a host batch.

  Returns:
    'map/<name>' and 'baseline/<name>' (B, steps + 1, 2) float32, the probability of the class predicted for the whole
    face after each portion in deletion and insertion; 'whole', 'deleted' and 'blurred' (B,): that of the ends.
  """
  outputs = step.evaluation_step(recipe, explain, variables, batch)
  predicted = outputs['logits'].argmax(axis=-1)
  resized = augment.resize(batch, recipe.image_size)
  face = resized['image'] if recipe.regions is None else batch['image'].astype(jnp.float32)
  rows, side = len(face), face.shape[1]
  gone = jnp.broadcast_to(face.mean(axis=(1, 2), keepdims=True), face.shape)
  blurred = blur(face, BLUR * side)

  def probability(images: jax.Array) -> jax.Array:
    """(B, n) of n images (B, n, side, side, C) of each face."""
    count = images.shape[1]
    images = images.reshape(-1, *images.shape[2:])  # Neighbours, so that a face's images stay on its device.
    if recipe.regions:
      points = {name: jnp.repeat(batch[name], count, axis=0) for name in ('landmarks',) if name in batch}
      images = augment.resize({'image': images, **points}, recipe.image_size, recipe.regions)['image']
    images = augment.normalise(images, **recipe.normalise)
    logits = recipe.model.apply({name: variables[name] for name in ('params', 'batch_stats')}, images, False).logits
    likely = jax.nn.softmax(logits, axis=-1).reshape(rows, count, -1)
    return jnp.take_along_axis(likely, predicted[:, None, None], axis=-1)[..., 0]

  ranked = {name: levels(values, side) for name, values in outputs.items() if name.startswith('map/')}
  for name, prior in BASELINES.items():
    if prior in SOURCES and SOURCES[prior] in batch:
      ranked[f'baseline/{name}'] = levels(prior_map(resized, prior, (side, side))[0], side)
    elif prior not in SOURCES:  # The same for all: of one face, lest the compiler computes the others'.
      same = prior_map({'label': batch['label'][:1]}, prior, (side, side))[0]
      ranked[f'baseline/{name}'] = jnp.broadcast_to(levels(same, side), (rows, side * side))
  keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(0), row))(batch['row'])
  noise = jax.vmap(lambda key: jax.random.bits(key, (side * side,)))(keys)
  counts = jnp.asarray(metrics.portions(side**2, steps)[1:-1], jnp.int32)

  def follow(level: jax.Array) -> jax.Array:
    """The inner points of both curves of one map, (steps - 1, B, 2)."""
    place = places(level, noise).reshape(rows, side, side, 1)

    def at(count: jax.Array) -> jax.Array:
      chosen = place < count
      return probability(jnp.stack([jnp.where(chosen, gone, face), jnp.where(chosen, face, blurred)], axis=1))

    return jax.lax.map(at, counts)

  # One after the other, maps and steps: memory is that of one pass, and the network is compiled once.
  inner = jax.lax.map(follow, jnp.stack(list(ranked.values())))
  whole, deleted, started = jax.lax.map(lambda images: probability(images[:, None])[:, 0],
                                        jnp.stack([face, gone, blurred]))
  first, last = jnp.stack([whole, started], axis=1), jnp.stack([deleted, whole], axis=1)
  table = {name: jnp.concatenate([first[:, None], inner[i].swapaxes(0, 1), last[:, None]], axis=1)
           for i, name in enumerate(ranked)}
  return table | {'whole': whole, 'deleted': deleted, 'blurred': started}


def levels(maps: jax.Array, side: int) -> jax.Array:
  """Resizes maps (B, h, w) to ``side`` bilinearly and rounds each to 65,536 levels of its range: (B, side^2) uint16.

  A map that is constant up to rounding, or not finite, is 0 everywhere.
  """
  low, high = (f(axis=(1, 2), keepdims=True) for f in (maps.min, maps.max))
  flat = ~((high - low) > alignment.FLAT * jnp.maximum(abs(low), abs(high))) | ~jnp.isfinite(high - low)
  maps = jnp.where(flat, 0.0, (maps - low) / jnp.where(flat, 1.0, high - low))
  maps = jax.image.resize(maps, (len(maps), side, side), 'bilinear')
  return jnp.rint(_LEVELS * jnp.clip(maps, 0, 1)).astype(jnp.uint16).reshape(len(maps), -1)


def places(levels: jax.Array, noise: jax.Array) -> jax.Array:
  """The place of each pixel in the order from the highest level down, equal ones by their ``noise``.

  Returns:
    (B, P) int32, in each row a permutation of 0 to P - 1, of levels (B, P) uint16 and noise (B, P) uint32.
  """
  return jnp.argsort(jnp.lexsort((noise, jnp.uint16(_LEVELS) - levels), axis=1), axis=1)


def blur(images: jax.Array, sigma: float) -> jax.Array:
  """Gaussian blur of square images (B, S, S, C), ``sigma`` in pixels; at borders the weights inside sum to 1."""
  distance = np.subtract.outer(*2 * [np.arange(images.shape[1])])
  weights = np.exp(-0.5 * (distance / sigma) ** 2)
  weights = jnp.asarray(weights / weights.sum(axis=1, keepdims=True), images.dtype)
  return jnp.einsum('bijc,hi,wj->bhwc', images, weights, weights, precision=jax.lax.Precision.HIGHEST)
