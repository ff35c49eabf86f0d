"""Collects runs into the papers' benchmark tables, beside the published numbers.

    python -m fer_jax.report --workdirs='runs/*'
    python -m fer_jax.report --workdirs=runs/pal-0,runs/pal-1,runs/pal-2 --table=ferplus --out=table.tex
    python -m fer_jax.report --workdirs='runs/*' --scores='scores/*.json' --table=ferplus

Runs that differ in their seed alone are one row: mean, standard deviation and, from three on, Student's t interval over
seeds; of a single run the Wilson interval over its faces. What is leaky or untrained is marked, and so are predictions
from elsewhere, whose protocol is what their authors declare. Every run gets a model card, WORKDIR/MODEL_CARD.md. Needs
no device.
"""

import sys
from typing import Any

from absl import flags

from fer_jax import command_line
from fer_jax.errors import UserError
from fer_jax.runtime.console import plain


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_list('workdirs', [], "Folders of training runs; '*' stands for several, as in 'runs/*'.")
  flags.DEFINE_list('scores', [], "Files that score --out has written; '*' stands for several.")
  flags.DEFINE_list('table', [], 'Which tables: rafdb, affectnet7, affectnet8, ferplus, sfew, fer2013, fec, '
                    'KEY_subsets, KEY_au_cues; all by default.')
  command_line.define_out()


def main(given: Any) -> None:
  """Prints or writes the tables; which runs could not be used is said on the standard error."""
  if not (given.workdirs or given.scores):
    raise UserError("--workdirs: name the folders of training runs, such as --workdirs='runs/*'.")
  import jax

  from fer_jax.reports import benchmark, card, formats, runs
  jax.config.update('jax_platforms', 'cpu')  # Nothing is computed.
  formats.check_out(given.out)
  found, problems = runs.collect(given.workdirs)
  scored, others = runs.collect_scores(given.scores)
  tables, remarks = benchmark.make_tables([*found, *scored], given.table)
  for workdir in dict.fromkeys(run.workdir for run in found):
    try:
      card.write_card(workdir)
    except UserError as error:
      problems.append(str(error))
  print(formats.deliver(tables, given.out))
  for sentence in (*problems, *others, *remarks):
    print(plain(f'note: {sentence}'), file=sys.stderr)


if __name__ == '__main__':
  command_line.run(define, main)
