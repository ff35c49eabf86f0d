"""What a pretrained start, and aligned faces, are worth: the plain classifier and PAL from three starts.

    python -m fer_jax.ablate --config=configs/ablations/starts.py:ferplus --seeds=2 --workdir=runs/starts --workers=2

Every start has one recipe, found on FERPlus' validation faces with the plain classifier on aligned faces. It needs both
forms of the data set (prepare it as it is, and with --align=similarity) and weights/mobilefacenet.pt, which
configs/README.md names the source of. Sized for two CPU cores; BUILD_NOTES.md has the table that it made.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import ablations, baseline, pal

_ADAMW = {'optimizer.name': 'adamw', 'optimizer.weight_decay': 0.05, 'batch_size': 64, 'ema': 0.99,
          'finetune.factor': 0.8, 'finetune.head_alone': 0.05, 'init_decides': ('backbone', 'normalise')}

STARTS = {
    'mobilefacenet': {
        **_ADAMW, 'init_from': 'weights/mobilefacenet.pt', 'image_size': 80, 'epochs': 2.5, 'finetune.frozen': 'stage2',
        'optimizer.learning_rate': 0.005},
    'dlib': {
        **_ADAMW, 'init_from': 'dlib', 'model.backbone': ConfigDict({'name': 'dlib_resnet', 'last': False}),
        'image_size': 112, 'epochs': 1.0, 'finetune.frozen': 'stage1', 'optimizer.learning_rate': 0.001},
    'random': {'image_size': 44, 'epochs': 1.0, 'ema': 0.99, 'optimizer.learning_rate': 0.05},
}
FACES = {'aligned': {'data.variant': 'majority-similarity112'}, 'as_is': {'data.variant': 'majority'}}


def _row(start: str, faces: str, loss: str) -> dict[str, Any]:
  tap = {'losses.pal.taps': ('stage3',)} if (start, loss) == ('dlib', 'pal') else {}  # stage4 has 3 x 3 pixels.
  # Aligned faces have 112 pixels, and those of FERPlus 48; no side is shrunk by the network's own resampling.
  size = max(STARTS[start]['image_size'], 48) if faces == 'aligned' else 48
  return {**STARTS[start], **FACES[faces], 'data.size': size, **tap}


ROWS = {f'{start}_{faces}_{loss}': _row(start, faces, loss)
        for start in STARTS for faces in FACES for loss in ('plain', 'pal')}


def get_config(argument: str = 'synthetic_faces:random_as_is_plain') -> ConfigDict:
  """The config of 'DATASET:START_FACES_LOSS'."""
  system = pal if argument.endswith('_pal') else baseline
  return ablations.choose(system.get_config, ROWS, argument, 'starts')
