"""Prepares a data set for training: faces, landmarks and maps become a TFDS data set of array_record files.

  python -m fer_jax.prepare --dataset=ferplus --source=ferplus.zip
  python -m fer_jax.prepare --describe=rafdb
  python -m fer_jax.prepare --dataset=ferplus --verify

An interrupted preparation leaves no data set, but what its processes have finished: the same command goes on.
"""

from typing import Any

from absl import flags

from fer_jax import command_line, registry
from fer_jax.errors import UserError
from fer_jax.runtime.console import plain

# Flags that go to a builder, where they are given.
_OPTIONS = ('source', 'strict', 'workers', 'landmark_model', 'check_counts', 'classes', 'first_release')


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string('dataset', None, 'The data set: the name of a builder in fer_jax/data/builders.')
  flags.DEFINE_string('describe', None, 'Print how to obtain and lay out this data set, its terms, classes and counts.')
  flags.DEFINE_string('source', None, 'The data set as distributed, a file or folder; --describe says which.')
  flags.DEFINE_string('variant', None, "The builder's configuration, such as a label rule; default: its first.")
  flags.DEFINE_string('data_dir', None, 'Where to write; default: $TFDS_DATA_DIR or ~/tensorflow_datasets.')
  flags.DEFINE_bool('verify', False, 'Prepare nothing, but read all records of the prepared data and compare their '
                    'digest.')
  flags.DEFINE_bool('strict', True, 'Fail at images that cannot be used; otherwise they are left out and listed.')
  flags.DEFINE_integer('workers', None, 'Processes to use; default: one for each core.', lower_bound=0)
  flags.DEFINE_string('landmark_model', None, "Path of dlib's shape_predictor_68_face_landmarks.dat.")
  flags.DEFINE_bool('check_counts', True, 'Fail where images per class are not those of the official data.')
  flags.DEFINE_enum('align', 'none', ['none', 'similarity'], 'Bring eyes, nose and mouth of every face to one place; '
                    "the variant's name then ends in -similarityN.")
  flags.DEFINE_integer('align_size', 112, 'Side of aligned images in pixels.', lower_bound=16)
  flags.DEFINE_list('classes', None, 'Of faces_folder: the names of the class folders in the order of the labels; '
                    'FOLDER:EXPRESSION where a folder is not called by its expression.')
  flags.DEFINE_string('first_release', None, "Of affectnet's npy variants: validation.csv of the first release, which "
                      "gives validation images the names that RAN's lists use.")
  flags.DEFINE_string('beam_runner', None, 'Prepare by this runner of Apache Beam, such as DirectRunner, and not '
                      'by processes on this machine.')
  flags.DEFINE_multi_string('beam_option', [], 'An option of the runner, such as --direct_num_workers=4; repeatable.')


def main(given: Any) -> None:
  """The command; see the flags."""
  from fer_jax.data.preparing import preparation
  if given.describe:
    print(preparation.describe(given.describe))
    return
  if not given.dataset:
    raise UserError(f'--dataset is missing. Choices: {", ".join(registry.names("data.builders"))}. How to obtain one: '
                    'python -m fer_jax.prepare --describe=NAME')
  options = {name: given[name].value for name in _OPTIONS if given[name].present}
  variant = given.variant
  if given.align != 'none':
    first = preparation.make_builder(given.dataset, variant).builder_config.name
    variant = f'{first}-{given.align}{given.align_size}'
  builder = preparation.make_builder(given.dataset, variant, given.data_dir, **options)
  if given.verify:
    print(plain(preparation.verify(builder)))
    return
  if not preparation.prepare(builder, given.beam_runner, given.beam_option):
    print('Already prepared; remove the folder to prepare it again.')
  print(plain(preparation.summary(builder)))


if __name__ == '__main__':
  command_line.run(define, main)
