"""A run's network, frozen, on other faces: its features, and how well they separate the classes of another data set."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax.data.reading import splits
from fer_jax.errors import UserError
from fer_jax.metrics import probes
from fer_jax.metrics.confusion import confusion_matrix
from fer_jax.metrics.summary import overall
from fer_jax.runtime import cluster, storage
from fer_jax.training import evaluation, loop, protocol, setup
from fer_jax.training.workdir import read_config

LAYERS = ('pooled', 'embedding')
_RATES = ('accuracy', 'accuracy_interval', 'mean_class_accuracy')


@dataclasses.dataclass(frozen=True)
class Target:
  """Another data set, and how to go about it.

  Attributes:
    dataset: a builder's name, or 'folder'; ``variant``, ``data_dir`` and ``classes`` as in ``splits.open_split``.
    train, test: the splits that classifiers learn from and are scored on.
  """

  dataset: str
  train: str = 'train'
  test: str = 'test'
  variant: str = ''
  data_dir: str = ''
  classes: tuple[str, ...] = ()

  @property
  def name(self) -> str:
    """The data set's name; of a folder, the folder's."""
    return Path(self.data_dir).resolve().name if self.dataset == 'folder' else self.dataset


def open_faces(trained: setup.Trained, dataset: str, variant: str, split: str, data_dir: str,
               classes: Sequence[str] = ()) -> splits.Split:
  """Opens faces as the network knows them: of its size, and grey where it has seen grey faces only.

  Raises:
    UserError: see ``splits.open_split``.
  """
  size = trained.protocol.data.size or trained.system.recipe.image_size
  return splits.open_split(dataset, variant, split, data_dir, size=size, channels=trained.record.get('channels', 0),
                           classes=classes, prepare_if_missing=dataset == 'synthetic_faces')


def features(trained: setup.Trained, source: splits.Split, mesh: jax.sharding.Mesh) -> dict[str, np.ndarray]:
  """The network's features of every face of a split from ``open_faces``, without augmentation.

  Returns:
    'pooled' (N, C), 'embedding' (N, D) and 'logits' (N, K) float32, 'label' int32 (N,), -1 where unknown.
  """
  table = evaluation.outputs_of(evaluator(trained, mesh), trained.variables, source, trained.protocol.eval_batch_size,
                                mesh)
  return {name: table[name] for name in ('pooled', 'embedding', 'logits', 'label')}


def evaluator(trained: setup.Trained, mesh: jax.sharding.Mesh) -> Callable[..., dict[str, Any]]:
  """The evaluation step without maps, which need landmarks."""
  cluster.check_batch(trained.protocol.eval_batch_size, mesh, 'eval_batch_size')
  return setup.make_evaluator(dataclasses.replace(trained.system, explain={}), mesh)


def transfer(trained: setup.Trained, target: Target, mesh: jax.sharding.Mesh, *, layer: str = 'pooled',
             shots: Sequence[int] = (), draws: int = 5, finetune_epochs: float = 0.0) -> dict[str, Any]:
  """Scores frozen features on another data set, writes ``WORKDIR/transfer/<target>.json`` and returns its content.

  Classifiers and their hyper-parameters come from the train split alone. Beside them stand an untrained network of the
  same form, the largest class of the train split, and where asked for the whole network trained on.

  Args:
    layer: 'pooled', the backbone's features, or 'embedding', the head's.
    shots: numbers of labelled faces of each class for the few-shot curve, with ``draws`` draws each; empty for none.
    finetune_epochs: passes over the train split of end-to-end training from the run's backbone, at a tenth of its
      learning rate, with a new linear head, in batches of at most an eighth of the split (but 8 faces); 0 for none.

  Raises:
    UserError: a bad target or layer, splits of different classes, or a split without labels.
  """
  if layer not in LAYERS:
    raise UserError(f"layer='{layer}': choose {' or '.join(map(repr, LAYERS))}.")
  if any(n < 1 for n in shots):
    raise UserError(f'shots={list(shots)}: give numbers from 1 up.')
  train, test = (open_faces(trained, target.dataset, target.variant, split, target.data_dir, target.classes)
                 for split in (target.train, target.test))
  if train.classes != test.classes:
    raise UserError(f"{target.train} has the classes {', '.join(train.classes)}, {target.test} has "
                    f"{', '.join(test.classes)}; both need the same.")
  network = evaluator(trained, mesh)

  def labelled(variables: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Features and labels of both splits under ``variables``."""
    tables = [evaluation.outputs_of(network, variables, split, trained.protocol.eval_batch_size, mesh)
              for split in (train, test)]
    return [(table[layer][table['label'] >= 0], table['label'][table['label'] >= 0]) for table in tables]

  (x, y), (test_x, test_y) = labelled(trained.variables)
  if not len(y) or not len(test_y):
    raise UserError(f'{target.name}: {len(y)} labelled faces in {target.train} and {len(test_y)} in {target.test}; '
                    'both need some.')
  name = '_'.join(filter(None, (target.name, target.variant, target.train, target.test, '-'.join(target.classes))))
  name = re.sub(r'[^\w.+-]+', '_', name)
  whole = [_finetuned(trained, target, train, finetune_epochs, name)] if finetune_epochs else []
  (blind_x, _), (blind_test_x, _) = labelled(cluster.replicate(trained.system.initial().variables(), mesh))

  def row(name: str, method: str, predictions: np.ndarray, chosen: dict[str, Any]) -> dict[str, Any]:
    rates = overall(confusion_matrix(test_y, predictions, len(test.classes)))
    return {'features': name, 'method': method, **{rate: rates[rate] for rate in _RATES}, 'chosen': chosen}

  rows = [*(row('this network', method, *probes.probe(method, x, y, test_x)) for method in probes.METHODS),
          row('untrained network', probes.METHODS[0], *probes.probe(probes.METHODS[0], blind_x, y, blind_test_x)),
          row('majority class', '-', np.full(len(test_y), np.bincount(y).argmax()), {}), *whole]
  inputs = {'this network': (x, test_x), 'untrained network': (blind_x, blind_test_x)}
  curve = [{'features': who, **point} for who, (theirs, tested) in inputs.items()
           for point in probes.few_shot(theirs, y, tested, test_y, shots, draws)]
  known = {*trained.record['classes'], *trained.record.get('teacher', {}).get('classes', ())}
  result = evaluation.stamp(trained) | {
      'target': {'dataset': target.name, 'variant': target.variant, 'train': target.train, 'test': target.test,
                 'classes': list(test.classes), 'train_count': len(y), 'test_count': len(test_y),
                 'fingerprints': [train.fingerprint, test.fingerprint]},
      'layer': layer, 'dim': x.shape[1], 'seen_in_training': [c for c in test.classes if c in known],
      'leaks': _leaks(trained, target, train, test), 'rows': rows, 'few_shot': curve}
  storage.write_json(trained.workdir / 'transfer' / f'{name}_{layer}.json', result)
  return result


def _leaks(trained: setup.Trained, target: Target, train: splits.Split, test: splits.Split) -> list[str]:
  """Why a target's numbers are not those of faces that nobody has seen, in words."""
  classifiers = protocol.Seen.of(train, target.train, who='the classifiers')
  return protocol.verdict(trained.protocol, [*trained.seen(), classifiers], test, target.test)['reasons']


def _finetuned(trained: setup.Trained, target: Target, train: splits.Split, epochs: float, name: str) -> dict[str, Any]:
  """Trains the whole network on the target in a workdir of its own; the row of its result."""
  config, devices = read_config(trained.workdir), jax.device_count()
  batch_size = min(config.batch_size, max(len(train) // 8, 8))  # A few dozen faces are more than one step an epoch.
  with config.unlocked():
    config.name = f'{config.name}, fine-tuned'
    config.init_from = str(storage.absolute(trained.workdir))
    config.finetune.update({'factor': 1.0, 'head_alone': 0.0, 'frozen': ''})
    config.data.update({
        'dataset': target.dataset, 'variant': target.variant, 'dir': target.data_dir, 'train': target.train,
        'holdout': '', 'test': target.test, 'classes': tuple(train.classes), 'target': 'label', 'parts': 1,
        'subsets': (), 'duplicates': False, 'size': config.data.size or config.image_size,
        'channels': trained.record.get('channels', 0)})
    config.sources, config.comparisons, config.explain = ConfigDict(), ConfigDict(), ConfigDict()
    config.teacher.workdir, config.select, config.variables = '', 'last', 'ema' if config.ema else 'trained'
    config.regions.scheme = 'none'
    config.model.head = ConfigDict({'name': 'linear', 'dropout': 0.0})
    config.losses = ConfigDict({'cross_entropy': {'loss': 'cross_entropy', 'weight': 1.0, 'mask': 'labelled'}})
    config.optimizer.learning_rate, config.optimizer.rules = config.optimizer.learning_rate / 10, ()
    config.epochs, config.batch_size = float(epochs), batch_size // devices * devices or devices
  result = loop.train(config, trained.workdir / 'transfer' / f'{name}_finetuned_{epochs:g}')
  return {'features': 'fine-tuned end to end', 'method': '-', **{rate: result[rate] for rate in _RATES},
          'chosen': {'epochs': config.epochs, 'batch_size': config.batch_size,
                     'learning_rate': config.optimizer.learning_rate}}
