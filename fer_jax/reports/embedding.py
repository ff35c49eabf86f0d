"""What the page says of an embedding: triplets, and what the frozen features are worth on other data sets."""

from collections.abc import Mapping, Sequence
from typing import Any

from fer_jax.reports import figures
from fer_jax.reports.table import (
  TRIVIAL_FEATURES,
  chosen_words,
  few_shot_rows,
  transfer_title,
  transfer_words,
  triplet_rows,
)


def comparisons(evaluations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """The triplet tables of evaluations with title and leaky: name, truth, dim, evaluation, leaky and rows of each."""
  return [{'name': name, 'truth': comparison['truth'], 'dim': comparison['dim'], 'evaluation': result['title'],
           'leaky': result['leaky'], 'rows': triplet_rows(comparison)}
          for result in evaluations for name, comparison in (result.get('triplets') or {}).items()]


def transfers(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
  """Adds to transfer results, by the stem of their files, what the page says and draws."""
  return [result | {
      'title': transfer_title(result),
      'words': transfer_words(result),
      'leaky': bool(result['leaks']),
      'rows': [row | {'trivial': row['features'] in TRIVIAL_FEATURES, 'chosen': chosen_words(row['chosen'])}
               for row in result['rows']],
      'shots': few_shot_rows(result),
      'curve': figures.few_shot(f'few-shot curve {stem}', result['few_shot'], _levels(result))
               if result['few_shot'] else '',
  } for stem, result in results.items()]


def _levels(result: Mapping[str, Any]) -> dict[str, float]:
  """Accuracies that a few-shot curve is held against: of all labels, and of none."""
  found = {(row['features'], row['method']): row['accuracy'] for row in result['rows']}
  named = {f"linear probe, all {result['target']['train_count']:,} faces": ('this network', 'linear probe'),
           'majority class': ('majority class', '-')}
  return {name: found[key] for name, key in named.items() if key in found}
