"""Data sets as distributed, made up by tests: written to a folder or a zip, prepared, and read back."""

import zipfile

import tensorflow_datasets as tfds

from fer_jax.data.preparing import preparation


def write(path, files, level=''):
  """Writes {name: content} as a zip if path ends so, otherwise as a folder; ``level`` is a folder around all."""
  inner = f'{level.rstrip("/")}/' if level else ''
  contents = {inner + name: content.encode() if isinstance(content, str) else content
              for name, content in files.items()}
  if path.suffix == '.zip':
    with zipfile.ZipFile(path, 'w') as archive:
      for name, content in contents.items():
        archive.writestr(name, content)
  else:
    for name, content in contents.items():
      (path / name).parent.mkdir(parents=True, exist_ok=True)
      (path / name).write_bytes(content)
  return str(path)


def build(dataset, tmp_path, files, variant=None, kind='source', **options):
  """Prepares the data set in ``tmp_path / 'data'``; official counts are not asked for."""
  options = {'source': write(tmp_path / kind, files), 'workers': 0, 'check_counts': False} | options
  builder = preparation.make_builder(dataset, variant, str(tmp_path / 'data'), **options)
  preparation.prepare(builder)
  return builder


def records(builder, split, encoded=('image', 'landmark_heatmap', 'action_unit_map')):
  """The records of a split by name."""
  skip = dict.fromkeys(encoded, tfds.decode.SkipDecoding())
  return {record['name'].decode(): record for record in builder.as_data_source(split, decoders=skip)}
