"""One step: forward, pull back, weigh losses, update. Pure functions; everything else is bookkeeping around them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fer_jax import registry
from fer_jax.attribution import priors
from fer_jax.attribution.maps import tap_map
from fer_jax.data import augment
from fer_jax.errors import UserError, nearest
from fer_jax.models.classifier import Classifier, Outputs
from fer_jax.models.convolution import for_cpu
from fer_jax.models.frozen import as_in_evaluation
from fer_jax.models.heads.linear import Linear
from fer_jax.training import optim
from fer_jax.training.state import TrainState
from fer_jax.training.teacher import Teacher

Batch = Mapping[str, jax.Array]

_AT_A_TIME = 4  # Faces that are one image, in ``_frozen_below``.
_DRAW = 0x6472  # Sets the row numbers of the prior 'shuffled' apart from what augmentation draws by the same keys.

# What an evaluation keeps of its batches.
KEPT = ('label', 'row', 'mask')
COMPARED = ('landmark_source', 'landmark_heatmap', 'causal_mask')


class Context:
  """One forward pass, as losses and attributions see it: an ``attribution.forward.Forward``.

  The taps are perturbation points: adding p to one moves its activation by p. One pass at p = 0 gives the outputs and,
  through ``jax.vjp``, the pull-back of any cotangent on the logits to any tap; XLA computes only what is asked for.
  Another pass may start at a tap. Where a face has regions, taps and their gradients are the full face's.
  ``batch_stats`` are the running statistics after this pass, in evaluation those before it. Modules at the paths
  ``frozen`` run as in evaluation; where all of them up to the tap ``frozen_to`` are, see ``_frozen_below``.
  """

  def __init__(self, model: Classifier, variables: Mapping[str, Any], images: jax.Array, batch: Batch, train: bool,
               key: jax.Array | None = None, teacher: Outputs | None = None, frozen: frozenset[str] = frozenset(),
               frozen_to: str = ''):
    self._head, self._params = model.head, variables['params']
    plain = {'params': variables['params'], 'batch_stats': variables['batch_stats']}
    taps = jax.eval_shape(lambda: model.apply(plain, images, False)).taps
    # The backbone's rows are (face, region) flattened, the full face first.
    regions = 1 if images.ndim == 4 else images.shape[1]
    zeros = {name: jnp.zeros((tap.shape[0] * regions, *tap.shape[1:]), tap.dtype) for name, tap in taps.items()}
    mutable, rngs = (['batch_stats'], {'dropout': key}) if train else ([], None)

    below = {'held': {'backbone': _frozen_below(model, plain, images, frozen_to)}} if frozen_to else {}

    def run(mutable, **collections):
      with as_in_evaluation(frozen):
        return model.apply({**plain, **collections}, images, train, batch.get('mask'), mutable=mutable, rngs=rngs)

    def run_all(perturbations):
      outputs, updates = run([*mutable, 'held'], perturbations={'backbone': perturbations}, **below)
      return outputs.logits, (outputs, updates.get('batch_stats', plain['batch_stats']), updates['held']['backbone'])

    _, self._pull_back, (self.outputs, self.batch_stats, self._held) = jax.vjp(run_all, zeros, has_aux=True)
    self._logits_above = lambda held: run(mutable, held={'backbone': held})[0].logits
    # (B, R, ...), because a strided slice of rows would move them between devices.
    self._by_face = lambda rows: rows.reshape(-1, regions, *rows.shape[1:])
    self.batch, self.teacher = batch, teacher

  def gradient(self, cotangent: jax.Array) -> dict[str, jax.Array]:
    """Pulls a cotangent (B, K) on the logits back to every tap: {tap: (B, h, w, c)}."""
    rows = self._pull_back(cotangent.astype(self.outputs.logits.dtype))[0]
    return {name: self._by_face(value)[:, 0] for name, value in rows.items()}

  def logits(self, activations: Mapping[str, jax.Array]) -> jax.Array:
    """Logits (B, K) of the same images with ``activations`` {tap: (B, h, w, c)} in the place of the taps' own.

    Nothing below them is computed again.
    """
    held = {}
    for name, full_face in activations.items():
      rows, *beside = self._held[name]
      others = self._by_face(rows)[:, 1:]
      held[name] = (jnp.concatenate([full_face[:, None], others], axis=1).reshape(rows.shape), *beside)
    return self._logits_above(held)

  def class_weights(self, cotangent: jax.Array) -> jax.Array:
    """Weights (B, C) of the last features in the scalar whose gradient with respect to the logits is ``cotangent``.

    Raises:
      UserError: the head is not pooling and one linear layer, so there are no such weights.
    """
    if not isinstance(self._head, Linear):
      raise UserError("this attribution needs the head 'linear': no other has one weight per class and channel. "
                      "'grad_cam' and 'layer_cam' go with every head.")
    kernel = self._params['head']['fc']['kernel']
    return jnp.matmul(cotangent, kernel.T, precision='highest')  # Accelerators would round the factors.


def _frozen_below(model: Classifier, variables: Mapping[str, Any], images: jax.Array, tap: str) -> dict[str, tuple]:
  """What the pass 'held' of a tap is below which nothing is trained, some faces at a time on a CPU's one device.

  What the layers below hand on then stays in the cache: MobileFaceNet up to stage2 takes half the time (64 faces of 80
  pixels).
  """
  if not for_cpu() or jax.device_count() > 1:
    return {}
  some = math.gcd(len(images), _AT_A_TIME if images.ndim == 4 else 1)
  variables = jax.lax.stop_gradient(variables)
  held = lambda images: model.apply(variables, images, False, mutable=['held'])[1]['held']['backbone'][tap]
  parts = jax.lax.map(held, images.reshape(-1, some, *images.shape[1:]))
  return {tap: jax.tree.map(lambda part: part.reshape(-1, *part.shape[2:]), parts)}


# Which examples a loss term speaks of: (B,) bool from a batch.
MASKS: dict[str, Callable[[Batch], jax.Array]] = {
    'all': lambda batch: jnp.ones_like(batch['label'], bool),
    'labelled': lambda batch: batch['target'].sum(axis=-1) > 0,
    # The first row of a triplet, which stands for all three.
    'triplets': lambda batch: batch['triplet'].reshape(-1) >= 0,
    # A detector or the data set found the landmarks; whole-image fallbacks are left out.
    'landmarks': priors.trusted,
    # And the labelled expression has action units: neutral faces carry none.
    'action_units': lambda batch: priors.trusted(batch) & (batch['action_unit_map'].max(axis=(1, 2)) > 0),
    # Any landmarks at all, fallbacks too.
    'any_landmarks': lambda batch: batch['landmark_heatmap'].max(axis=(1, 2)) > 0,
}


@dataclasses.dataclass(frozen=True)
class Term:
  """A loss term: ``weight(step) * mean of loss over the examples in mask``."""

  name: str
  loss: Callable[[Context], jax.Array]
  weight: Callable[[jax.Array], jax.Array | float]
  mask: Callable[[Batch], jax.Array]


def make_terms(losses: Mapping[str, Mapping[str, Any]], total_steps: int) -> list[Term]:
  """Builds the loss terms that ``config.losses`` describes.

  Args:
    losses: {term: {'loss': name of a file in ``losses``, 'weight': number or ``(fraction, value)`` pairs joined
      linearly over training, 'mask': a name in ``MASKS``, and the loss's own options}}. A term of weight 0 is left out
      altogether, so it cannot change a bit.
    total_steps: length of training, for weight schedules.

  Raises:
    UserError: unknown loss, mask or option, or no term left.
  """
  terms = []
  for name, options in losses.items():
    options = dict(options)
    where = f'config.losses.{name}'
    if 'loss' not in options:
      raise UserError(f"{where} needs a key 'loss'{nearest(name, registry.names('losses'))}")
    loss = registry.find('losses', options.pop('loss'))
    weight, mask = options.pop('weight', 1.0), options.pop('mask', 'all')
    if mask not in MASKS:
      raise UserError(f"{where}.mask='{mask}' is unknown{nearest(str(mask), MASKS)}")
    registry.check_options(where, loss, options, given=1)
    if weight == 0:
      continue
    if isinstance(weight, (int, float)):
      schedule = optax.constant_schedule(float(weight))
    else:
      fractions, values = zip(*weight, strict=True)
      schedule = functools.partial(jnp.interp, xp=jnp.array(fractions) * total_steps, fp=jnp.array(values))
    terms.append(Term(name, functools.partial(loss, **options), schedule, MASKS[mask]))
  if not terms:
    raise UserError('config.losses has no term with a weight other than 0.')
  return terms


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What a step needs besides state and batch: the pure parts a config names.

  Attributes:
    augment, normalise, regions: keyword arguments of ``augment.augment``, ``augment.normalise`` and, None where a face
      is one image, of ``landmarks.regions.region_boxes``.
    seed: of dropout and drawn targets, with the step.
    data_seed: of order and augmentation, likewise.
    accumulate: steps for one update of the parameters.
    frozen: paths of parameters and modules that stay as they are, see ``optim.frozen_paths``.
    frozen_to: the tap up to which all of them are in it; '' for none.
    remat: keep only what leaves the backbone's blocks for the backward pass, and compute their inside again.
    group: rows of a batch that a loss may compare with each other, see ``data/reading/mixture.py``; 0 where nobody
      knows. Then the compiler takes every row for a neighbour of the next one and sends rows between devices.
    axis: mapped axis over devices in the mapped form of data parallelism, None under ``jax.jit``, where the batch is
      one global array and every sum below is already global.
  """

  model: Classifier
  optimizer: optax.GradientTransformation
  learning_rate: Callable[[jax.Array], jax.Array]
  terms: list[Term]
  seed: int
  data_seed: int
  augment: Mapping[str, Any]
  image_size: int
  normalise: Mapping[str, Any]
  regions: Mapping[str, Any] | None = None
  remat: bool = False
  drawn_target: bool = False
  ema_decay: float = 0.0
  accumulate: int = 1
  frozen: frozenset[str] = frozenset()
  frozen_to: str = ''
  teacher: Teacher | None = None
  group: int = 0
  axis: str | None = None


def train_step(recipe: Recipe, state: TrainState, meter: dict[str, jax.Array], frozen: Mapping[str, Any], batch: Batch
               ) -> tuple[TrainState, dict[str, jax.Array]]:
  """Takes one step to the next state and meter; donate those before it.

  Args:
    meter: running sums of ``new_meter`` since they were last read. The host reads it only when it logs.
    frozen: the teacher's variables; {} without a teacher.
    batch: a host batch (see ``data/reading/streams.py``), placed on the devices.
  """
  total = functools.partial(jax.lax.psum, axis_name=recipe.axis) if recipe.axis else (lambda x: x)
  keys = augment.example_keys(recipe.data_seed, state.step, batch['row'])
  if recipe.drawn_target:
    own_keys = augment.example_keys(recipe.seed, state.step, batch['row'])
    batch = {**batch, 'target': augment.draw_target(batch['target'], own_keys)}
  teacher = recipe.teacher and recipe.teacher(frozen, batch, keys, recipe.augment)
  batch = augment.augment(batch, keys, image_size=recipe.image_size, regions=recipe.regions, **recipe.augment)
  images = augment.normalise(batch['image'], **recipe.normalise)
  batch = {**batch, 'draw': jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, _DRAW)))(keys)}
  if recipe.group:
    batch = {**batch, 'triplet': batch['triplet'].reshape(-1, recipe.group)}
  # One key per shard is enough for dropout: it carries no promise about the number of devices.
  dropout = jax.random.fold_in(jax.random.key(recipe.seed), state.step)
  if recipe.axis:
    dropout = jax.random.fold_in(dropout, jax.lax.axis_index(recipe.axis))

  # One column per term and one for the accuracy, (B, columns): however many there are, the devices add them up twice.
  # The counts need the batch alone, so they wait for nothing; the values go along with the gradient.
  masks = jnp.stack([*(term.mask(batch) for term in recipe.terms), MASKS['labelled'](batch)], axis=1)
  counts = total(masks.sum(axis=0, dtype=jnp.float32))
  weights = jnp.array([term.weight(state.step) for term in recipe.terms])
  weighted = lambda means: (weights * means[:-1]).sum()  # Not a matrix product: accelerators would round its factors.

  def objective(params):
    variables = {'params': optim.hold(params, recipe.frozen), 'batch_stats': state.batch_stats}
    context = Context(recipe.model, variables, images, batch, True, dropout, teacher, recipe.frozen, recipe.frozen_to)
    columns = jnp.stack([*(term.loss(context) for term in recipe.terms), hits(context.outputs, batch)], axis=1)
    # where, not a product: a masked example may be anything, and 0 * inf is not 0. Divided by the counts over all
    # devices, so that the shards' shares of a mean add up to the global mean.
    means = jnp.where(masks, columns, 0.0).sum(axis=0) / jnp.maximum(counts, 1.0)
    return weighted(means), (means, context.batch_stats)

  if recipe.remat:  # Around all of it: the pull-back inside would undo a checkpoint inside the net.
    objective = jax.checkpoint(objective, policy=_keep)
  (_, (means, batch_stats)), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
  gradient, means = total((gradient, means))
  updates, opt_state = recipe.optimizer.update(gradient, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  ema = state.ema
  if recipe.ema_decay:
    ema = optim.ema_update(ema, {'params': params, 'batch_stats': batch_stats}, recipe.ema_decay, state.step,
                           recipe.accumulate)
  values = {'loss': weighted(means), 'gradient_norm': optax.tree.norm(gradient), 'accuracy': means[-1], 'steps': 1}
  shares = counts / total(len(masks))
  for i, term in enumerate(recipe.terms):
    values |= {f'loss/{term.name}': means[i], f'share/{term.name}': shares[i]}
  meter = {name: meter[name] + value for name, value in values.items()}
  return TrainState(state.step + 1, params, batch_stats, opt_state, ema), meter


def new_meter(terms: list[Term]) -> dict[str, jax.Array]:
  """Zeros for the sums that ``train_step`` adds to: the loss, each term by name, the share of examples it spoke of, the
  gradient norm and the training accuracy, and the number of steps to divide them by."""
  names = ['loss', 'gradient_norm', 'accuracy', 'steps']
  names += [f'{kind}/{term.name}' for term in terms for kind in ('loss', 'share')]
  return {name: jnp.zeros((), jnp.float32) for name in names}


def hits(outputs: Outputs, batch: Batch) -> jax.Array:
  """Whether the arg-max logit is the target's arg-max: (B,) float32, 0 or 1; means nothing without a label."""
  return (outputs.logits.argmax(axis=-1) == batch['target'].argmax(axis=-1)).astype(jnp.float32)


def _keep(primitive: Any, *inputs: Any, **options: Any) -> bool:
  """What rematerialisation keeps: what leaves the blocks, and sums, which are small and may be over all devices."""
  named = jax.checkpoint_policies.save_only_these_names('block')
  return primitive.name in ('reduce_sum', 'psum') or named(primitive, *inputs, **options)


def evaluation_step(recipe: Recipe, explain: Mapping[str, Mapping[str, Any]], variables: Mapping[str, Any], batch: Batch
                    ) -> dict[str, jax.Array]:
  """Classifies and explains a batch with running statistics: every row depends on its own image alone.

  The one exception is ARM with ``global_mean='batch'``, whose logits depend on all rows that are not padding.

  Args:
    explain: {name: keyword arguments of ``tap_map``}, with channels 'mean' or 'half_mean'.
    variables: {'params', 'batch_stats'}.
    batch: a host batch; rows with mask False are padding, to be dropped by the caller.

  Returns:
    Per row: 'logits' (B, K), 'embedding' (B, D), 'pooled' (B, C), 'map/<name>' (B, h, w) for each of ``explain``, and
    of the host batch the fields ``KEPT`` and, beside maps, ``COMPARED``, where there are.
  """
  kept = {name: batch[name] for name in KEPT + COMPARED * bool(explain) if name in batch}
  batch = augment.resize(batch, recipe.image_size, recipe.regions)
  images = augment.normalise(batch['image'], **recipe.normalise)
  context = Context(recipe.model, variables, images, batch, train=False)
  table = {name: getattr(context.outputs, name) for name in ('logits', 'embedding', 'pooled')}
  for name, options in explain.items():
    table[f'map/{name}'] = tap_map(context, **options)[..., 0]
  return table | kept


def scored_fields(recipe: Recipe) -> list[str]:
  """The fields of a split that ``evaluation_step`` needs for anything but maps."""
  return ['image', 'label', *(['landmarks'] if recipe.regions else [])]
