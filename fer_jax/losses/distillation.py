"""Distillation: the network should answer as its frozen teacher does, which needs no label.

On logits after Hinton et al. (arXiv 1503.02531, section 2); on embeddings by their squared distance. Which of the two
DeepFEVER (arXiv 2201.07781) uses is not known here; ``configs/deepfever.py`` has both as terms.
"""

import jax
import jax.numpy as jnp
import optax

from fer_jax.attribution.forward import Forward
from fer_jax.errors import UserError


def distillation(forward: Forward, match: str, temperature: float = 2.0) -> jax.Array:
  """Distance of the network's answer from its teacher's.

  Args:
    forward: the forward pass; ``forward.teacher`` are the teacher's outputs for the same faces.
    match: 'logits': T^2 KL(softmax(teacher / T) || softmax(logits / T)) in nats; 'embedding': the squared distance.
    temperature: T > 0, for logits.

  Returns:
    (B,), at least 0 up to rounding.

  Raises:
    UserError: there is no teacher, the embeddings differ in size, or an unknown option.
  """
  ours, teacher = forward.outputs, forward.teacher
  if teacher is None:
    raise UserError("the loss 'distillation' needs a teacher: set config.teacher.workdir to a trained run.")
  if match == 'logits':
    if temperature <= 0:
      raise UserError(f'distillation.temperature={temperature}: it must be above 0.')
    soft = lambda logits: jax.nn.log_softmax(logits / temperature)
    divergence = optax.losses.kl_divergence_with_log_targets(soft(ours.logits), soft(teacher.logits))
    return temperature**2 * divergence
  if match != 'embedding':
    raise UserError(f"distillation.match='{match}': choose 'logits' or 'embedding'.")
  if ours.embedding.shape != teacher.embedding.shape:
    raise UserError(f'distillation: the embedding has {ours.embedding.shape[-1]} numbers, the teacher\'s '
                    f"{teacher.embedding.shape[-1]}; choose the same size, or match='logits'.")
  return jnp.square(ours.embedding - teacher.embedding).sum(axis=-1)
