"""DeepFEVER: an expression embedding from labels, triplets and distillation; first a teacher, then a student.

    python -m fer_jax.train --config=configs/deepfever.py:ferplus:teacher --workdir=runs/teacher
    python -m fer_jax.train --config=configs/deepfever.py:ferplus:student --workdir=runs/student \\
        --config.teacher.workdir=runs/teacher

arXiv 2201.07781 (ICIP 2021). This is a plan to reproduce it, not its recipe: the paper's code and faces are private,
and the photographs of the FEC triplets (arXiv 1811.11283) have largely gone from the web. Known from the abstract: a
teacher learns from FEC's triplets and AffectNet's labels, a student from the teacher's answers on many unlabelled
faces, and its frozen features transfer to RAF-DB. Ours: everything else, that is the small recipe of
configs/baseline.py, the shares of the sources, both kinds of distillation with weight 1 and T = 2, and clean faces for
the teacher. Recalled: an embedding of 16 numbers of length 1 and the margins (both FECNet's); results of AffectNet-8
61.6 %, AffectNet-7 65.4 %, FEC 86.5 %. The paper's trunk is FaceNet's, 20180402-114759-vggface2.pt of
github.com/timesler/facenet-pytorch: --config.init_from=FILE. Expect of FEC 77 to 80 % for a teacher, and 1 to 5 points
more for a student with a large unlabelled set.

Where FEC is prepared, --config.sources.triplets.dataset=fec --config.sources.triplets.split=train
--config.sources.triplets.truth=annotators train on it, and the same keys of config.comparisons.triplets, with
split=test, score it. Without it triplets are made from the votes (FERPlus) or labels of single faces, which is another
task: never print the two in one column.
"""

from ml_collections import ConfigDict

from configs import baseline, common
from fer_jax.errors import UserError, nearest

ROLES = ('teacher', 'student')

# What triplets are made of, and faces without a label: which nobody agreed on, and the training faces once more.
_TRUTH = {'ferplus': 'votes'}  # Of other data sets, labels.
_UNLABELLED = {'ferplus': {'undecided': {'variant': 'unlabelled', 'split': 'train+valid', 'parts': 1},
                           'unlabelled': {'split': 'train+valid', 'parts': 2}},
               'synthetic_faces': {'unlabelled': {'split': 'valid', 'parts': 3}}}


def get_config(argument: str = 'teacher') -> ConfigDict:
  """The config of 'ROLE' on the synthetic faces, 'DATASET:ROLE' or 'DATASET:accelerator:ROLE'; of 'DATASET' alone the
  teacher's."""
  dataset, _, role = argument.rpartition(':') if argument not in common.DATASETS else (argument, '', 'teacher')
  dataset = dataset or 'synthetic_faces'
  if role not in ROLES:
    raise UserError(f"configs/deepfever.py: unknown role '{role}'{nearest(role, ROLES)} Write DATASET:teacher or "
                    'DATASET:student; it has no recipe of a paper.')
  config = baseline.get_config(dataset)
  with config.unlocked():
    config.name = f'deepfever/{role}'
    config.model.head = ConfigDict({'name': 'embedding', 'dim': 16, 'normalised': True, 'dropout': 0.0})
    config.losses.triplet = ConfigDict({
        'loss': 'triplet', 'weight': 1.0, 'mask': 'triplets', 'margins': (0.1, 0.2, 0.2)})
    where = {'dataset': '', 'variant': '', 'dir': ''}  # The training split's own.
    chosen = {'truth': _TRUTH.get(config.data.dataset, 'labels'), 'agreement': 'two_thirds'}
    config.sources.triplets = ConfigDict({
        **where, 'split': config.data.train, 'parts': 1, 'supervision': 'triplets', **chosen, 'count': 60_000})
    config.comparisons.triplets = ConfigDict({**where, 'split': config.data.test, **chosen, 'count': 6_000})
    config.data.parts = 5  # With one triplet, three faces, groups of eight rows.
    if role == 'student':
      config.data.parts = 2
      again = {'unlabelled': {'split': config.data.train, 'parts': 3}}
      for name, faces in _UNLABELLED.get(config.data.dataset, again).items():
        config.sources[name] = ConfigDict({**where, 'supervision': 'none', **faces})
      for match in ('logits', 'embedding'):
        config.losses[f'distil_{match}'] = ConfigDict({
            'loss': 'distillation', 'weight': 1.0, 'mask': 'all', 'match': match, 'temperature': 2.0})
  return config
