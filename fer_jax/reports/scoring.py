"""Predictions from elsewhere, which ``analysis/scoring`` has scored: what a table has to say of them, in words."""

from collections.abc import Mapping
from typing import Any

from fer_jax.reports.words import declared, ends, leaks, mark, percent, unanswered


def remarks(result: Mapping[str, Any]) -> list[str]:
  """What to know of them, as clauses; none of an evaluation of a run."""
  if 'predictions' not in result:
    return []
  about = result['predictions']
  first = lambda key: ', '.join(about[f'first_{key}']) + ', ...' * (len(about[f'first_{key}']) < about[key])
  said = [f'protocol {declared(result)}; what this network has seen is not known here, so there is no verdict on it']
  if lacking := unanswered(result):
    parts = [f"{about['missing']:,} missing ({first('missing')})"] * bool(about['missing'])
    parts += [f"{about['empty']:,} with a row that has no answer"] * bool(about['empty'])
    of = '; NLL, ECE and Brier score are of the others' * ('nll' in result)
    said.append(f"{lacking}: {' and '.join(parts)}{of}")
  if about['others']:
    said.append(f"answers that are none of these classes ({', '.join(about['other_classes'])}): {about['others']:,}; "
                'they count as wrong')
  if about['absent']:
    said.append(f"{', '.join(about['absent'])} never got a probability above 0: where it is the true class, NLL is "
                'infinite')
  if about['unknown']:
    said.append(f"rows with a name that no face of this split has ({first('unknown')}): {about['unknown']:,}; they are "
                'left out')
  if about['several']:
    said.append(f"faces with several rows: {about['several']:,}; that of the detector's highest score counts")
  return said


def against(result: Mapping[str, Any]) -> list[str]:
  """A line on the run that they are compared with; none where there is no such run."""
  if 'against' not in result:
    return []
  run = result['against']
  value, low, high = (100 * run['difference'][key] for key in ('value', 'low', 'high'))
  leaky = mark(run) + f" ({'; '.join(leaks(run))})" * bool(leaks(run))
  return [f"against {run['workdir']} ({run['name']}, seed {run['seed']}), which has {percent(run['accuracy'])} "
          f"({ends(run['accuracy_interval'])}){leaky}: {value:+.2f} points (95 % over faces: {low:+.2f} to "
          f"{high:+.2f}); right alone on {run['ours_only']:,} faces, the run on {run['theirs_only']:,} (McNemar's "
          f"exact test: p = {run['p_value']:.2g}). This speaks of these two networks, not of other seeds."]
