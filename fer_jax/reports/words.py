"""What console, tables and pages say alike: numbers, values of JSON files and warnings, in words."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fer_jax.metrics.calibration import BINS


def percent(rate: float | None) -> str:
  """Prints a rate in [0, 1] with two decimals, or a dash where it is unknown."""
  return '–' if rate is None else f'{100 * rate:.2f} %'


def interval(ends: Sequence[float] | None) -> str:
  """Prints an interval (low, high) of a rate, or a dash where it is unknown."""
  return '–' if ends is None else f'{percent(ends[0])} to {percent(ends[1])}'


def ends(interval: Sequence[float] | None) -> str:
  """As ``interval``, for narrow columns: in per cent with one decimal and without the sign."""
  return '–' if interval is None else f'{100 * interval[0]:.1f} to {100 * interval[1]:.1f}'


def brief(value: Any) -> str:
  """A value of a JSON file as a reader would write it."""
  if isinstance(value, bool) or value is None:
    return {True: 'yes', False: 'no', None: 'none'}[value]
  if isinstance(value, list):
    return ', '.join(f'({brief(v)})' if isinstance(v, list) else brief(v) for v in value) or 'none'
  if isinstance(value, Mapping):
    return ', '.join(f'{key} {brief(v)}' for key, v in value.items()) or 'none'
  return f'{value:,}' if isinstance(value, int) and value >= 10_000 else str(value)


def measures(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
  """What an evaluation says beside accuracy: (title, number with its unit, remark)."""
  nats = lambda value: '–' if value is None else f'{value:.3f} nats'
  shown = (
      ('macro_f1', 'macro F1', percent, 'Over the classes that occur or were predicted.'),
      ('nll', 'NLL', nats, 'Mean negative log-likelihood of the true class: less is better.'),
      ('ece', f'ECE, {BINS} bins', percent, 'Gap between confidence and accuracy. A small split makes it larger.'),
      ('brier', 'Brier', lambda value: '–' if value is None else f'{value:.3f}',
       'Squared error of the probabilities, summed over the classes: 0 is best, 2 worst.'))
  calibrated = result.get('calibration') or {}
  fitted = f" (fitted on {calibrated['overlap']:,} of these faces)" if calibrated.get('overlap') else ''
  after = lambda key, text: f'Calibrated{fitted}: {text(calibrated[key])}. ' if key in calibrated else ''
  return [(title, text(result[key]), after(key, text) + remark) for key, title, text, remark in shown if key in result]


def chosen(protocol: Mapping[str, Any]) -> str:
  """Which variables of which step a protocol tested, in words."""
  select = protocol['select']  # An earlier version had 'ema' for the average after the last step.
  step = f"of the step that did best on {protocol.get('chosen_by') or 'held-out faces'}"
  if select in ('last', 'ema'):
    step = 'after the last step'
  averaged = 'ema' in (select, protocol.get('variables'))
  return f"the {'moving average of the ' * averaged}parameters {step}"


def started(protocol: Mapping[str, Any]) -> str:
  """What the training of a protocol's network started from, in words; '' for random parameters."""
  if not (start := protocol.get('start')):
    return ''
  if 'sha256' in start:
    return f"{start['title']} ({start['file']}, sha256 {start['sha256'][:12]}, trained on {start['training_data']})"
  before = started({'start': start.get('from')})
  return f"the run {start['run']} (seed {start['seed']}, step {start['step']:,})" + f', from {before}' * bool(before)


def leaks(result: Mapping[str, Any]) -> list[str]:
  """How the numbers were chosen by, or depend on, the very images they are measured on, in words; empty if not."""
  protocol = result.get('protocol') or {}
  earlier = ['an earlier version marked it, without saying why'] * bool(protocol.get('leaky'))
  return list(protocol.get('reasons', earlier))


def mark(result: Mapping[str, Any]) -> str:
  """What stands behind the name of a row whose numbers leak, or whose protocol is not known here; '' of others."""
  unknown = {'': '', 'not declared': ' NOT DECLARED'}.get(declared(result), ' DECLARED')
  return ' LEAKY' * bool(leaks(result)) + unknown


def declared(result: Mapping[str, Any]) -> str:
  """The protocol of predictions from elsewhere (``analysis/scoring``), in their author's words; '' of a run."""
  protocol = result.get('protocol') or {}
  if 'declared' not in protocol:
    return ''
  return f"declared: {protocol['declared']}" if protocol['declared'] else 'not declared'


def unanswered(result: Mapping[str, Any]) -> str:
  """How many faces got no answer in predictions from elsewhere; '' where all did, and of a run."""
  about = result.get('predictions') or {}
  lacking = result['count'] - about.get('answered', result['count'])
  return f"{lacking:,} of {result['count']:,} faces have no answer and count as wrong" if lacking else ''


def comparisons(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """The scores of triplets by name, each with the protocol of its faces (of earlier versions, the result's), and
  'apart': its ``leaks`` where they are not the result's."""
  found = {name: {'protocol': result.get('protocol'), **scores}
           for name, scores in (result.get('triplets') or {}).items()}
  return {name: scores | {'apart': [why for why in leaks(scores) if why not in leaks(result)]}
          for name, scores in found.items()}


def every_leak(results: Iterable[Mapping[str, Any]]) -> list[str]:
  """The different ``leaks`` of several results."""
  return list(dict.fromkeys(reason for result in results for reason in leaks(result)))


def other_data(result: Mapping[str, Any]) -> str:
  """Says that the data have changed since training; '' where they have not."""
  then, now = (result.get('protocol') or {}).get('other_data') or ('', '')
  return f'the data are not those of the training: their digest was {then[:12]}, now it is {now[:12]}' if then else ''


def remarks(result: Mapping[str, Any], *first: str) -> list[str]:
  """What else a reader of a result should know of it, as clauses; ``first`` those that are not ''."""
  untrained = 'the network is untrained' if result.get('step') == 0 else ''
  return list(filter(None, (*first, other_data(result), untrained)))


def warnings(leaks: Sequence[str], remarks: Iterable[str] = (), about: str = '') -> list[str]:
  """Sentences on how numbers leak, if they do, and on what else to know of them; ``about`` names whose they are."""
  leaky = [f"Leaky: {about}{'; '.join(leaks)}. Compare this with no honest result."] * bool(leaks)
  return leaky + [f'Note: {about}{words}.' for words in remarks]


def evaluations(result: Mapping[str, Any]) -> int:
  """How often the split of a result was evaluated in its workdir."""
  return (result.get('protocol') or {}).get('evaluations', 1)


def named(protocol: Mapping[str, Any]) -> str:
  """The data set of a protocol, or of a target, with its variant."""
  return protocol['dataset'] + (f" ({protocol['variant']})" if protocol.get('variant') else '')


def title(result: Mapping[str, Any], otherwise: str = '') -> str:
  """Names an evaluation: its split (``otherwise`` where unknown) and what was changed for it."""
  split = (result.get('protocol') or {}).get('split') or otherwise
  return f"{split} with {', '.join(result['overrides'])}" if result.get('overrides') else split


def every(values: Iterable[Any], separator: str = ' and ') -> str:
  """All different values, in order."""
  return separator.join(dict.fromkeys(map(str, values)))
