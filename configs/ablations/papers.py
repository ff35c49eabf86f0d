"""The five systems at the papers' level: one start, one recipe, RAN's protocol on FERPlus; what differs is the system.

    python -m fer_jax.ablate --config=configs/ablations/papers.py:ferplus --workdir=configs/records/papers \\
        --set="data.subsets=('lists/ferplus_occlusion.txt','lists/ferplus_pose30.txt','lists/ferplus_pose45.txt')"

MobileFaceNet (MS-Celeb-1M) is fine-tuned on aligned faces. It needs both forms of the data set (prepare it as it is,
and with --align=similarity), weights/mobilefacenet.pt and RAN's lists, of which configs/README.md names the sources.
Sized for two CPU cores. BUILD_NOTES.md has the plan, which is older than the first run, and the results so far. What
finished runs left behind is in configs/records/papers: the command leaves them out and trains those that are missing.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import ablations, arm, au_cues, baseline, deepfever, pal, ran
from configs.ablations.starts import STARTS

STEPS = 551  # Of 64 faces, 1.25 times the 28,236 of train and valid.

# Aligned faces have 112 pixels, those of FERPlus 48; no side is shrunk by the network's own resampling.
_ALIGNED = {**STARTS['mobilefacenet'], 'epochs': 1.25, 'data.variant': 'majority-similarity112', 'data.size': 80,
            'data.duplicates': True}
_LONG = {**_ALIGNED, 'epochs': 7.5}
_AS_IS = {**_ALIGNED, 'data.variant': 'majority', 'data.size': 48}
_HELD_OUT = {**_ALIGNED, 'data.train': 'train', 'data.holdout': 'valid', 'length': f'{STEPS} steps'}  # To calibrate on.

_SEEN = {**_ALIGNED, 'data.classes': ('neutral', 'happiness', 'surprise', 'fear'), 'length': f'{STEPS} steps'}

_ARM_OF_512 = {'model.head.block': 16, 'model.head.kernel': 32, 'model.head.stride': 8}  # Channels, as in the paper.
_MEAN_OF_REGIONS = {'model.head.self_attention': False, 'model.head.relation_attention': False,
                    'losses.region_bias.weight': 0.0}


def _some_labels(per_cent: int, **changes: Any) -> dict[str, Any]:
  """DeepFEVER's sources with the labels of the first faces of the training split; the other faces have none."""
  return {**_ALIGNED, 'data.train': f'train[:{per_cent}%]', 'length': f'{STEPS} steps',
          'checkpoint_every': 125 / per_cent,  # In epochs of those few faces.
          'sources.triplets.split': f'train[:{per_cent}%]', **changes}


def _student(per_cent: int) -> dict[str, Any]:
  return _some_labels(per_cent, **{'sources.unlabelled.split': f'train[{per_cent}%:]+valid',
                                   'sources.unlabelled.parts': 3, 'sources.undecided.parts': 0})


_LABELS_ALONE = {'data.parts': 1, 'sources.triplets.parts': 0, 'losses.triplet.weight': 0.0}


def _all_three(dataset: str) -> ConfigDict:
  """RAN with PAL's and AU cues' loss on the full face."""
  config = ran.get_config(dataset)
  with config.unlocked():
    config.losses.pal = pal.get_config(dataset).losses.pal
    config.losses.au_cues = au_cues.get_config(dataset).losses.au_cues
  return config


def _deepfever(role: str):
  return lambda dataset: deepfever.get_config(f'{dataset}:{role}')


# Each row's system, and its changes.
_ROWS = {
    'plain': (baseline.get_config, _ALIGNED),
    'pal': (pal.get_config, _ALIGNED),
    'pal_gaussian': (pal.get_config, {**_ALIGNED, 'losses.pal.prior': 'centred_gaussian'}),
    'au_cues': (au_cues.get_config, _ALIGNED),
    # RAN, and a plain classifier of its cost: of six views, and of as many more steps.
    'ran': (ran.get_config, _ALIGNED),
    'six_views': (ran.get_config, {**_ALIGNED, **_MEAN_OF_REGIONS}),
    'ran_no_loss': (ran.get_config, {**_ALIGNED, 'losses.region_bias.weight': 0.0}),
    'plain_long': (baseline.get_config, _LONG),
    # Added when seed 0 of 'plain' and 'pal' had been seen: see the plan.
    'pal_long': (pal.get_config, _LONG),
    'au_cues_long': (au_cues.get_config, _LONG),
    # Controls and forms of PAL and of AU cues.
    'pal_shuffled': (pal.get_config, {**_ALIGNED, 'losses.pal.prior': 'shuffled'}),
    'pal_predicted': (pal.get_config, {**_ALIGNED, 'losses.pal.target': 'predicted'}),
    'pal_all': (pal.get_config, {**_ALIGNED, 'losses.pal.channels': 'all'}),
    'au_cues_random': (au_cues.get_config, {
        **_ALIGNED, 'losses.au_cues.prior': 'action_unit_random', 'data.maps.action_unit_random_map': True}),
    'arm': (arm.get_config, {**_ALIGNED, **_ARM_OF_512}),
    'pal_au_cues_ran': (_all_three, _ALIGNED),
    'random': (baseline.get_config, {
        **_ALIGNED, 'init_from': '', 'finetune.frozen': '', 'finetune.factor': 1.0, 'finetune.head_alone': 0.0,
        'model.backbone': ConfigDict({'name': 'mobilefacenet'})}),
    # As the papers' faces are: as they come.
    'plain_as_is': (baseline.get_config, _AS_IS),
    'pal_as_is': (pal.get_config, _AS_IS),
    'au_cues_as_is': (au_cues.get_config, _AS_IS),
    'ran_as_is': (ran.get_config, _AS_IS),
    'arm_as_is': (arm.get_config, {**_AS_IS, **_ARM_OF_512}),
    # DeepFEVER with few labels; 'labels' learn from these alone, with the same head.
    **{f'{role}_{per_cent}': made for per_cent in (1, 10) for role, made in (
        ('labels', (_deepfever('teacher'), _some_labels(per_cent, **_LABELS_ALONE))),
        ('teacher', (_deepfever('teacher'), _some_labels(per_cent))),
        ('student', (_deepfever('student'), _student(per_cent))))},
    # Trained on the faces of four classes, for transfer to the others.
    'seen_labels': (_deepfever('teacher'), {**_SEEN, **_LABELS_ALONE}),
    'seen_teacher': (_deepfever('teacher'), _SEEN),
    # To calibrate on the validation faces.
    'plain_held_out': (baseline.get_config, _HELD_OUT),
    'pal_held_out': (pal.get_config, _HELD_OUT),
}
ROWS = {row: changes for row, (_, changes) in _ROWS.items()}
TEACHERS = {f'student_{per_cent}': f'teacher_{per_cent}' for per_cent in (1, 10)}

# Chosen before anything was trained.
PRIMARY = (('pal', 'plain'), ('pal', 'pal_gaussian'), ('au_cues', 'plain'), ('ran', 'six_views'))
SEEDS = dict.fromkeys(('plain', 'pal', 'pal_gaussian', 'au_cues'), 5)  # Of others, 3.


def get_config(argument: str = 'ferplus:plain') -> ConfigDict:
  """The config of 'DATASET:ROW'."""
  system, _ = _ROWS.get(argument.rpartition(':')[2], _ROWS['plain'])
  return ablations.choose(system, ROWS, argument, 'papers')
