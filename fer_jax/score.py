"""Scores anybody's predictions of any program on the faces of a prepared data set, and puts them beside a run.

    python -m fer_jax.score --predictions=theirs.csv --dataset=ferplus --split=test
    python -m fer_jax.score --predictions=theirs.csv --dataset=ferplus --split=test --subset=occlusion.txt \\
        --duplicates=train+valid --against=runs/pal --protocol='trained on FERPlus train, last epoch' --out=theirs.json

A row is a face's name and its class, or its name and a probability for each class. What ``predict`` writes will do,
and so will evaluation/SPLIT.npz of a run. Faces that are missing count as wrong. How the network was trained and chosen
is what its author declares: there is no verdict on it. ``report --scores=theirs.json`` has the result beside runs.
"""

from typing import Any

from absl import flags

from fer_jax import command_line
from fer_jax.errors import UserError


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string('predictions', None, 'A csv file with a header, JSON lines, or evaluation/SPLIT.npz of a run.',
                      required=True)
  flags.DEFINE_string('dataset', None, 'The prepared data set that the faces are of.', required=True)
  flags.DEFINE_string('variant', '', 'Its variant.')
  flags.DEFINE_string('split', 'test', 'Its split.')
  flags.DEFINE_string('data_dir', '', 'Where prepared data sets lie.')
  flags.DEFINE_multi_string('subset', [], 'A list of faces to score apart; may be repeated.')
  flags.DEFINE_string('duplicates', '', 'Also score without the images that this split has too, such as train+valid.')
  flags.DEFINE_string('against', '', 'Folder of a run that was evaluated on this split, to be compared face by face.')
  flags.DEFINE_string('protocol', '', "How the network was trained and chosen, in its author's words.")
  flags.DEFINE_string('name', '', "What tables call it; the file's name by default.")
  flags.DEFINE_string('out', None, 'A .json file for the result.')
  flags.DEFINE_boolean('verbose', False, 'Print all tables: every class and subset.')


def main(given: Any) -> None:
  """Prints the tables, and writes the result where one is wanted."""
  if given.out and not given.out.endswith('.json'):
    raise UserError(f'--out={given.out}: give the path of a .json file.')
  import jax

  from fer_jax.analysis.scoring import score
  from fer_jax.reports.table import print_evaluation
  from fer_jax.runtime import cluster, storage
  jax.config.update('jax_platforms', 'cpu')  # Nothing is computed on a device.
  result = score(given.predictions, given.dataset, given.split, variant=given.variant, data_dir=given.data_dir,
                 subset_lists=given.subset, duplicates=given.duplicates, against=given.against,
                 protocol=given.protocol, name=given.name)
  if given.out:
    storage.write_json(given.out, result)
  print_evaluation(result, verbose=given.verbose)
  if given.out:
    cluster.say(f'Written: {given.out}')


if __name__ == '__main__':
  command_line.run(define, main)
