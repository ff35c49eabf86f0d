"""Backbones of fewer blocks, for tests in which compiling is most of the time."""

# By table of fer_jax.models.backbones, of the nets whose tables are not options.
SHORT = {
    'ir.UNITS': {50: (1, 1, 1, 1)},
    'vgg.STAGES': (1, 1, 1, 1, 1),
    'mobilenet_v2.GROUPS': ((1, 24, 1, 1), (6, 32, 2, 2), (6, 96, 1, 2)),
    'mobilefacenet.GROUPS': ((2, 1, 1, 2, 'stage2'), (2, 2, 2, 2, 'stage3')),
    'mobilenet_v1.LAYERS': ((2, 1, 'stage1'), (4, 2, 'stage2'), (4, 1, 'stage3'), (8, 2, 'stage4')),
    'efficientnet_lite0.GROUPS': ((3, 1, 1, 16, 1, 'stage1'), (5, 2, 6, 24, 2, 'stage2'), (3, 2, 6, 40, 1, 'stage3')),
    'inception_resnet_v1.REPEATS': {'repeat_1': 1, 'repeat_2': 1, 'repeat_3': 1},
    'dlib_resnet.GROUPS': ((1, 1, False, 'stage1'), (2, 2, True, 'stage2'), (4, 1, True, 'stage3'), (8, 1, True, None)),
}


def shorten(monkeypatch):
  """Makes all of them short."""
  for table, blocks in SHORT.items():
    monkeypatch.setattr(f'fer_jax.models.backbones.{table}', blocks)
