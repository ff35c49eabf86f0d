"""DeepFEVER's sources at a size that two CPU cores train: which of labels, triplets and unlabelled faces does what.

    python -m fer_jax.ablate --config=configs/ablations/deepfever.py:ferplus --seeds=2 --workdir=runs/deepfever

The net and recipe of configs/ablations/systems.py; every row takes as many steps of as many faces, but for the 'seen'
rows, which are trained on the faces of four classes, for transfer to the others. 'labels' is the plain classifier,
whose pooled features are scored as its embedding. Triplets are made from votes or labels: they are not FEC.
fer_jax/reports/README.md has the table.
"""

from ml_collections import ConfigDict

from configs import ablations, deepfever
from configs.ablations.systems import SIZE

_LABELS = {'data.parts': 1, 'sources.triplets.parts': 0, 'losses.triplet.weight': 0.0,
           'model.head': ConfigDict({'name': 'linear', 'dropout': 0.0})}
_SEEN = {'data.classes': ('neutral', 'happiness', 'surprise', 'fear')}

ROWS = {
    'labels': {**SIZE, **_LABELS},
    'teacher': SIZE,
    'student': SIZE,
    'student_labelled': {**SIZE, 'data.parts': 5, 'sources.unlabelled.parts': 0},
    'seen_labels': {**SIZE, **_LABELS, **_SEEN},
    'seen_teacher': {**SIZE, **_SEEN},
}
TEACHERS = {'student': 'teacher', 'student_labelled': 'teacher'}  # Rows whose runs with the same seed they learn from.


def get_config(argument: str = 'synthetic_faces:teacher') -> ConfigDict:
  """The config of 'DATASET:ROW'."""
  dataset, _, row = argument.partition(':')
  rows = dict(ROWS)
  if dataset == 'ferplus':
    rows['student_labelled'] = {**rows['student_labelled'], 'sources.undecided.parts': 0}
  role = 'student' if row.startswith('student') else 'teacher'
  return ablations.choose(lambda name: deepfever.get_config(f'{name}:{role}'), rows, argument, 'deepfever')
