"""The faithfulness section and the console tables: numbers, marks, caveats, and nothing where nothing was measured."""

import copy
import json

import numpy as np
import pytest

from fer_jax.metrics.faithfulness import summarise_correlations, summarise_curves
from fer_jax.reports import faithfulness
from fer_jax.reports.page import write_report
from tests import pages
from tests.pages import Page

SHARES = np.array([0, 0.5, 1])


def make_result(**protocol):
  """20 faces: a map that is better than both baselines, one that is worse, one of which nobody can tell."""
  rng = np.random.default_rng(0)
  pair = lambda low, high: {kind: np.clip(np.linspace(*ends, 3) + rng.normal(0, 0.01, (20, 1)), 0, 1)
                            for kind, ends in (('deletion', (0.9, low)), ('insertion', (high, 0.9)))}
  baselines = {'uniform': pair(0.5, 0.5), 'centred_gaussian': pair(0.5, 0.5), 'landmarks': pair(0.45, 0.6)}
  maps = {'good_map': pair(0.1, 0.8), 'worse': pair(0.8, 0.1),
          'same': {kind: values + np.resize([0.1, -0.1], (20, 1)) for kind, values in baselines['uniform'].items()}}
  bars = {name: baselines[name] for name in ('uniform', 'centred_gaussian')}
  correlated = lambda *means: summarise_correlations([{'pearson': np.array([mean]), 'spearman': np.array([mean / 2])}
                                                      for mean in means])
  unknown = correlated(np.nan)
  rows = (('nothing', 0, (1.0,)), ('another face', 0, (0.625,)), ('head', 1, (-0.5, 0.25)), ('stage4', 2, (0.0, 0.125)))
  return {
      'protocol': {'dataset': 'drawn', 'split': 'test', 'trained_on': 'train', 'select': 'last', 'leaky': False,
                   'faces': 20, 'of': 1234, 'steps': 2, 'pixels': [16, 16], 'deletion_to': 'the mean colour',
                   'insertion_from': 'a blurred face', 'probability_of': 'the class predicted',
                   'seeds_of_random_parameters': [1, 2], **protocol},
      'step': 500, 'name': 'tiny <net>', 'seed': 0, 'commit': '0123456789ab', 'hardware': 'two cores',
      'evaluated': '2026-01-01T00:00:00+00:00', 'shares': SHARES.tolist(),
      'maps': summarise_curves(SHARES, maps, bars), 'baselines': summarise_curves(SHARES, baselines, bars),
      'ends': {'whole': 0.875, 'deleted': 0.125, 'blurred': 0.25}, 'without_landmarks': 0,
      'randomised': [{'random': name, 'depth': depth, 'maps': {'good_map': correlated(*means),
                                                               'worse': correlated(*means), 'same': unknown}}
                     for name, depth, means in rows]}


@pytest.fixture(scope='module')
def result():
  return make_result()


def printed(result):
  return ' '.join(pages.printed(faithfulness.print_faithfulness, result, width=200).split())


def section(tmp_path, result):
  """The page's section, and the page."""
  if result:
    (tmp_path / 'explanations').mkdir(exist_ok=True)
    (tmp_path / 'explanations/test.json').write_text(json.dumps(result))
  text = write_report(tmp_path).read_text()
  return text.partition('id="faithfulness"')[2].partition('<section')[0], Page(text)


def areas(result, kind):
  """The lines of a table of areas by name."""
  of_kind = next(entry for entry in faithfulness._KINDS if entry[0] == kind)
  return {line['map']: line for line in faithfulness.area_table(result, *of_kind).lines}


ORDER, GAUSSIAN = (f'better than {name} by (95 %)' for name in ('random order', 'centred gaussian'))


def test_gains_are_signed_and_told_apart_by_their_intervals(result):
  for kind in ('deletion', 'insertion'):
    rows = areas(result, kind)
    assert list(rows) == ['good map', 'worse', 'same', 'random order', 'centred gaussian', 'landmarks']
    assert [name for name in rows['good map'].cells if 'better' in name] == [ORDER, GAUSSIAN]
    for name in (ORDER, GAUSSIAN):
      assert rows['good map'][name].endswith(' ▲') and rows['worse'][name].endswith(' ▽')
    assert rows['same'][ORDER].endswith(')') and rows['random order'][ORDER] == ''
    gain = result['maps']['good_map'][kind]['gain']['uniform']
    assert rows['good map'][ORDER] == (
        f"{gain['value']:+.3f} ({gain['interval'][0]:+.3f} to {gain['interval'][1]:+.3f}) ▲")
    assert rows['good map']['area'] == f"{result['maps']['good_map'][kind]['area']:.3f}"


def test_the_table_of_random_parameters(result):
  table = faithfulness.random_table(result)
  assert [column.name for column in table.columns] == ['random', 'good map', 'worse', 'same']
  assert [line['random'] for line in table.lines] == ['nothing', 'nothing, map of another face', 'head', 'and stage4']
  assert [line.style for line in table.lines] == ['trivial', 'trivial', '', '']
  assert table.lines[2]['good map'] == '-0.12 (-0.50 to 0.25)\nSpearman -0.06'
  assert '(' not in table.lines[1]['good map'] and table.lines[2]['same'].startswith('–')


def test_the_console_says_what_was_measured_and_what_it_cannot_tell(result):
  text = printed(result)
  for words in ('20 of 1,234 faces', '16 x 16 pixels in 2 portions', 'goes from 0.875 to 0.125', 'from 0.250 to 0.875',
                'better than random order by', faithfulness.CURVES_CAVEAT, faithfulness.RANDOM_CAVEAT,
                'The intervals cover the choice of faces, not of the seed', '0.625', 'and stage4'):
    assert words.replace('0.625', '0.62') in text, words
  assert 'LEAKY' not in text and 'Note' not in text


def test_the_page_has_a_section_with_curves_and_tables(tmp_path, result):
  text, page = section(tmp_path, result)
  assert 'faithfulness' in page.ids and text.count('<svg') == 2 and len(page.ids) == len(set(page.ids))
  area = result['maps']['good_map']['deletion']['area']
  for words in (f'{area:.3f}', 'Are the maps faithful?', 'test, 20 faces', 'tiny &lt;net&gt;', 'random order', '▲', '▽',
                'var(--row-0)', 'pixels gone', 'pixels back', '-0.12', 'Spearman -0.06',
                'nothing, map of another face'):
    assert words in text, words
  assert 'leaky-mark' not in text
  plain = lambda words: words.replace("'", '&#39;')
  assert plain(faithfulness.CURVES_CAVEAT) in text and plain(faithfulness.RANDOM_CAVEAT) in text


def test_without_a_file_there_is_no_section_and_a_damaged_one_is_named(tmp_path):
  text, page = section(tmp_path, None)
  assert 'faithfulness' not in page.ids and not text
  (tmp_path / 'explanations').mkdir()
  (tmp_path / 'explanations/test.json').write_text('{"protocol": ')
  text = write_report(tmp_path).read_text()
  assert 'explanations/test.json' in text and 'id="faithfulness"' not in text


def test_what_to_beware_of_is_said_everywhere(tmp_path, result):
  beware = copy.deepcopy(result)
  beware['protocol'] |= {'leaky': True, 'reasons': ['9 of 20 test images were trained on'],
                         'other_data': ['a' * 64, 'b' * 64]}
  beware |= {'step': 0, 'without_landmarks': 3}
  text = printed(beware)
  page = section(tmp_path, beware)[0]
  for words in ('9 of 20 test images were trained on', 'the network is untrained', '3 of the faces have no landmarks',
                f"their digest was {'a' * 12}"):
    assert words in text and words in page, words
  assert text.count('LEAKY') == 2 + 2 * 6 and page.count('leaky-mark') == 2 + 2 + 2 * 6


def test_a_single_face_has_no_intervals_and_no_marks(result):
  one = copy.deepcopy(result)
  for group in ('maps', 'baselines'):
    for measured in one[group].values():
      for curve in measured.values():
        curve['interval'] = None
        for gain in curve['gain'].values():
          gain['interval'] = None
  row = areas(one, 'deletion')['good map']
  assert row['95 %'] == '–' and row[ORDER].endswith('(–)') and row[GAUSSIAN].endswith('(–)')
