"""FERPlus: label rules, the reading of every layout, and what must fail; on drawn images, and on the real labels."""

import collections
import functools
import hashlib
import io
import pathlib
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest

from fer_jax.data import face
from fer_jax.data.builders.ferplus import ferplus, labels
from fer_jax.data.builders.ferplus import files as reader
from fer_jax.errors import UserError
from tests import trees
from tests.trees import records, write

REAL = pathlib.Path(__file__).resolve().parents[4] / 'shared' / 'data' / 'ferplus.zip'

# Real rows of votes and what each rule makes of them: a class or a distribution, None where it drops the image.
VECTORS = [
    ((4, 0, 0, 1, 3, 2, 0, 0, 0, 0), None, {'neutral': 4 / 7, 'anger': 3 / 7}, 'neutral'),
    ((6, 0, 1, 1, 0, 0, 0, 0, 2, 0), 'neutral', {'neutral': 1}, 'neutral'),
    ((4, 0, 0, 4, 1, 0, 0, 0, 1, 0), None, {'neutral': 1 / 2, 'sadness': 1 / 2}, 'neutral'),
    ((4, 0, 0, 0, 0, 3, 1, 0, 1, 0), 'neutral', {'neutral': 4 / 7, 'disgust': 3 / 7}, 'neutral'),
    ((4, 0, 0, 2, 2, 0, 0, 0, 2, 0), None, {'neutral': 1 / 2, 'sadness': 1 / 4, 'anger': 1 / 4}, 'neutral'),
    ((3, 3, 0, 2, 0, 0, 0, 0, 2, 0), None, {'neutral': 3 / 8, 'happiness': 3 / 8, 'sadness': 1 / 4}, 'neutral'),
    ((3, 0, 2, 1, 1, 0, 0, 0, 3, 0), None, None, 'neutral'),
    ((3, 1, 3, 0, 0, 0, 0, 0, 3, 0), None, {'neutral': 1 / 2, 'surprise': 1 / 2}, 'neutral'),
    ((1, 2, 0, 1, 2, 2, 0, 0, 2, 0), None, {'happiness': 1 / 3, 'anger': 1 / 3, 'disgust': 1 / 3}, 'happiness'),
    ((2, 0, 2, 2, 2, 0, 2, 0, 0, 0), None, None, 'neutral'),
    ((1, 0, 3, 1, 0, 0, 1, 0, 4, 0), None, None, None),
    ((0, 0, 0, 0, 0, 0, 0, 0, 0, 10), None, None, None),
]

FINGERPRINTS = {
    ('majority', 'train'): '5cf6d35bfca67d3fb8099b3398123a38db31ac7849043eb47ffa368461b07f22',
    ('majority', 'valid'): '0cd89503b28c94a24c45c637a3c0a24637f64f82a86f7138b786174c9f8992b4',
    ('majority', 'test'): '92cad50d04fac5dc0616d586b03e4481426e7448f8f16cad124d87235dab9ebd',
    ('crossentropy', 'train'): 'c61fe173d9438cda8839268cf910964c84e5fe761bfbd284dd3ffb0f26fa09b9',
    ('crossentropy', 'valid'): '5dc608f47a5750973b3baf567041e3c550d073f8773ea3394ec6f57ae18f2561',
    ('crossentropy', 'test'): 'a3b89224b2f5f22a0e108ed0df86534f195a79cfd70916ccf18ea0bfd122530b',
}


def distribution(expected):
  if expected is None:
    return None
  expected = expected if isinstance(expected, dict) else {expected: 1}
  return np.array([expected.get(name, 0) for name in labels.CLASSES], np.float32)


def check(votes, rule, expected):
  found = labels.target(votes, rule)
  if expected is None:
    assert found is None, (votes, rule)
  else:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, distribution(expected), atol=1e-7, err_msg=f'{votes} {rule}')


def test_vectors():
  for votes, majority, crossentropy, argmax in VECTORS:
    check(votes, 'majority', majority)
    check(votes, 'crossentropy', crossentropy)
    check(votes, 'probability', crossentropy)
    check(votes, 'argmax', argmax)


def slow_target(votes, rule):
  """The rules once more, with plain lists and word for word; returns fractions or None."""
  if rule == 'argmax':
    i = votes.index(max(votes))
    return [float(j == i) for j in range(8)] if i < 8 else None
  v = [0 if n <= 1 else n for n in votes]
  total = sum(v)
  if rule == 'majority':
    if max(v) <= 0.5 * total:
      return None
    i = v.index(max(v))
    return [float(j == i) for j in range(8)] if i < 8 else None
  out, part, count, go = [0] * 10, 0, 0, True
  while part < 0.75 * total and count < 3 and go:
    m = max(v)
    for i in range(10):
      if v[i] == m:
        out[i] = m
        v[i] = 0
        part += m
        count += 1
        if i >= 8:
          go = False
          if sum(out) > m:
            out[i] = 0
            count -= 1
          break
  if sum(out) <= 0.5 * total or count > 3 or out.index(max(out)) >= 8:
    return None
  return [n / sum(out[:8]) for n in out[:8]]


ten_votes = st.lists(st.integers(0, 9), min_size=10, max_size=10).map(
    lambda picks: tuple(picks.count(i) for i in range(10)))
any_votes = ten_votes | st.lists(st.integers(0, 10), min_size=10, max_size=10).map(tuple)


@hypothesis.given(any_votes, st.sampled_from(labels.RULES))
@hypothesis.settings(max_examples=400, deadline=None)
def test_rules_equal_a_slow_implementation(votes, rule):
  hypothesis.assume(any(votes))
  found, expected = labels.target(votes, rule), slow_target(list(votes), rule)
  assert (found is None) == (expected is None)
  if found is not None:
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.sum() == pytest.approx(1)
    # Wherever an official rule keeps an image, its class is the one with the most votes.
    assert np.argmax(found) == np.argmax(votes)


def test_evaluation_is_by_majority_except_under_argmax():
  assert [labels.rule_of_split(rule, 'test') for rule in labels.RULES] == ['majority'] * 3 + ['argmax']
  assert [labels.rule_of_split(rule, 'train') for rule in labels.RULES] == list(labels.RULES)


# Drawn trees.

ROWS = {
    'FER2013Train': [('fer0000000.png', (10, 0, 0, 0, 0, 0, 0, 0, 0, 0)), ('fer0000001.png', VECTORS[0][0]),
                     ('fer0000002.png', (0, 0, 8, 0, 0, 0, 2, 0, 0, 0)), ('fer0000003.png', VECTORS[-1][0])],
    'FER2013Valid': [('fer0000010.png', (0, 9, 0, 0, 0, 0, 0, 1, 0, 0)), ('fer0000011.png', VECTORS[0][0])],
    'FER2013Test': [('fer0000020.png', (0, 0, 0, 0, 0, 0, 0, 10, 0, 0))],
}


def picture(seed):
  noise = np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)
  file = io.BytesIO()
  PIL.Image.fromarray(noise).save(file, 'PNG')
  return file.getvalue()


def line(name, votes):
  return f'{name},"(0, 0, 48, 48)",{",".join(map(str, votes))}\n'


def tree():
  """File names and contents of a tiny FERPlus."""
  files = {}
  for folder, rows in ROWS.items():
    files[f'{folder}/label.csv'] = ''.join(line(*row) for row in rows).encode()
    files |= {f'{folder}/{name}': picture(int(name[3:10])) for name, _ in rows}
  return files


build = functools.partial(trees.build, 'ferplus', kind='files.zip')


@pytest.mark.parametrize('file, level', [
    ('f.zip', ''), ('f.zip', 'data/'), ('f.zip', 'FERPlus-master/data/'), ('folder', ''), ('folder', 'data'),
    ('dossier é 漢', ''), ('é 漢.zip', '')])
def test_accepted_layouts(tmp_path, file, level):
  splits = reader.open_files(write(tmp_path / file, tree(), level))
  assert list(splits) == ['train', 'valid', 'test']
  assert [len(split.rows) for split in splits.values()] == [4, 2, 1]
  assert splits['valid'].rows[0].image.read() == picture(10)


def broken(**changes):
  """The tree with files replaced, added or (None) removed; __ stands for / and names lack their suffix."""
  files = tree()
  for name, content in changes.items():
    files[name.replace('__', '/').replace('_png', '.png').replace('_csv', '.csv')] = content
  return {name: content for name, content in files.items() if content is not None}


def table(*lines):
  return ''.join(lines).encode()


GOOD = line(*ROWS['FER2013Test'][0])


@pytest.mark.parametrize('files, expected', [
    ({k: v for k, v in tree().items() if 'Valid' not in k}, ['no FER2013Valid', 'FER2013Test/']),
    ({'fer2013.csv': b'emotion,pixels,Usage\n'}, ['no FER2013Train', 'FER2013 as Kaggle has it']),
    ({'train/0/a.png': picture(0)}, ['found there: train/', 'generate_training_data.py']),
    (broken(FER2013Test__label_csv=None), ['label.csv is missing']),
    (broken(FER2013Test__label_csv=b''), ['FER2013Test/label.csv is empty']),
    (broken(FER2013Test__label_csv=b'\xff\xfe\x00'), ['FER2013Test/label.csv cannot be read as UTF-8 text']),
    (broken(FER2013Test__fer0000020_png=None), ['line 1: fer0000020.png', 'no PNG', 'FER2013Test/label.csv']),
    (broken(FER2013Train__fer0000002_png=None), ['line 3: fer0000002.png', 'not beside it']),
    (broken(FER2013Test__label_csv=table(GOOD, 'fer0000021.png,"(0, 0, 48, 48)",1,2,3\n')),
     ['FER2013Test/label.csv', 'line 2: expected 12 fields', 'found 5']),
    (broken(FER2013Test__label_csv=table(GOOD.replace('10', 'ten'))), ['line 1', "found 'ten'"]),
    (broken(FER2013Test__label_csv=table(GOOD.replace('10', '-1'))), ['line 1', "found '-1'"]),
    (broken(FER2013Test__label_csv=table(GOOD.replace(', 48)', ')'))), ['line 1', 'four numbers']),
    (broken(FER2013Test__label_csv=table(GOOD, GOOD)), ['line 2: fer0000020.png is already in line 1']),
])
@pytest.mark.parametrize('kind', ['f.zip', 'folder'])
def test_broken_sources_are_told_with_file_and_line(tmp_path, kind, files, expected):
  with pytest.raises(UserError) as e:
    reader.open_files(write(tmp_path / kind, files))
  for text in (*expected, kind):
    assert text in str(e.value)


def test_many_problems_are_told_at_once_but_not_all(tmp_path):
  files = broken(FER2013Test__label_csv=b'x\n' * 50)
  with pytest.raises(UserError) as e:
    reader.open_files(write(tmp_path / 'folder', files))
  assert 'line 20:' in str(e.value) and 'line 21:' not in str(e.value) and '30 more' in str(e.value)


def test_wrong_paths(tmp_path):
  (tmp_path / 'text.zip').write_text('no zip')
  (tmp_path / 'cut.zip').write_bytes(pathlib.Path(write(tmp_path / 'f.zip', tree())).read_bytes()[:-500])
  for path, expected in ((None, 'To obtain it'), (tmp_path / 'none', 'does not exist'),
                         (tmp_path / 'text.zip', 'neither a folder nor a zip'),
                         (tmp_path / 'cut.zip', 'damaged')):
    with pytest.raises(UserError, match=expected):
      reader.open_files(path and str(path))
  twice = tree() | {f'copy/{name}': content for name, content in tree().items()}
  with pytest.raises(UserError, match='more than once'):
    reader.open_files(write(tmp_path / 'twice.zip', twice))


def test_images_without_a_line_are_ignored_and_named(tmp_path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  builder = build(tmp_path, broken(FER2013Train__stray_png=picture(0)))
  notes = builder.contents()['notes']
  assert notes[0] == '1 image(s) of train have no line in label.csv and were ignored, e.g. stray.png'
  assert notes[1].endswith(': train: found 2, expected 25,045 (neutral 1 for 8,733, happiness 0 for 7,284, surprise 1 '
                           'for 3,136, sadness 0 for 3,022, anger 0 for 2,098, disgust 0 for 116, fear 0 for 536, '
                           'contempt 0 for 120).')
  assert set(records(builder, 'train')) == {'fer0000000.png', 'fer0000002.png'}


def test_an_image_belongs_to_one_split(tmp_path):
  files = broken(FER2013Test__label_csv=table(line(*ROWS['FER2013Valid'][0])), FER2013Test__fer0000010_png=picture(0))
  with pytest.raises(UserError, match='unlike these .1.:\n  fer0000010.png: in valid and in test'):
    build(tmp_path, files)


def test_building_without_a_source_says_where_to_get_it(tmp_path):
  builder = ferplus(data_dir=tmp_path, file_format='array_record')
  with pytest.raises(UserError, match='github.com/microsoft/FERPlus'):
    builder.download_and_prepare()
  assert not builder.data_path.exists()


def test_counts_are_asserted_class_by_class(tmp_path):
  with pytest.raises(UserError) as e:
    build(tmp_path, tree(), check_counts=True)
  for text in ('majority: not as many', 'train: found 2, expected 25,045 (neutral 1 for 8,733, ',
               'contempt 1 for 15)', '--nocheck_counts'):
    assert text in str(e.value)


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  return build(tmp_path_factory.mktemp('built'), tree(), workers=1)


def test_records(built):
  assert {split: info.num_examples for split, info in built.info.splits.items()} == {'train': 2, 'valid': 1, 'test': 1}
  train = records(built, 'train')
  assert set(train) == {'fer0000000.png', 'fer0000002.png'}
  one = train['fer0000002.png']
  assert one['label'] == 2 and one['votes'].dtype == np.int32
  np.testing.assert_array_equal(one['votes'], ROWS['FER2013Train'][2][1])
  np.testing.assert_array_equal(one['target'], np.eye(8)[2])
  # The file as distributed, byte for byte.
  assert one['image'] == picture(2)
  assert one['landmarks'].shape == (68, 2) and np.isfinite(one['landmarks']).all()
  # Noise is no face.
  assert face.LANDMARK_SOURCES[one['landmark_source']] == 'image_box'
  assert len(built.as_data_source('train+valid')) == 3
  assert not (built.data_path / 'skipped.txt').exists()
  assert 'tensorflow' not in sys.modules


def test_soft_rules_keep_more_for_training_only(tmp_path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  builder = build(tmp_path, tree(), variant='crossentropy')
  train = records(builder, 'train')
  assert len(train) == 3 and len(records(builder, 'valid')) == 1
  np.testing.assert_allclose(train['fer0000001.png']['target'], distribution({'neutral': 4 / 7, 'anger': 3 / 7}))
  np.testing.assert_allclose(train['fer0000002.png']['target'], distribution('surprise'))


def test_the_unlabelled_are_those_that_majority_drops(tmp_path, built):
  builder = build(tmp_path, tree(), variant='unlabelled', workers=0)
  assert list(builder.info.splits) == ['train', 'valid']  # Every test image has a majority.
  for split in builder.info.splits:
    dropped = records(builder, split)
    assert dropped.keys() == {name for name, _ in ROWS[reader.FOLDERS[split]]} - records(built, split).keys()
    for record in dropped.values():
      assert record['label'] == -1 and not record['target'].any() and record['votes'].sum()


HURT = {
    'truncated': picture(2)[:1000],
    'empty': b'',
    'text': b'this is no picture',
    'flipped': picture(2)[:500] + bytes(100) + picture(2)[600:],
}


@pytest.mark.parametrize('hurt, reason', [
    ('truncated', 'truncated'), ('empty', 'empty file'), ('text', 'not an image'), ('flipped', 'unreadable')])
def test_bad_images_are_left_out_named_and_counted(tmp_path, hurt, reason):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  files = broken(FER2013Train__fer0000002_png=HURT[hurt])
  builder = build(tmp_path, files, strict=False)
  assert set(records(builder, 'train')) == {'fer0000000.png'}
  assert builder.contents()['skipped'] == 1 and builder.contents()['splits']['train']['faces'] == 1
  listed = (builder.data_path / 'skipped.txt').read_text().splitlines()
  assert len(listed) == 1 and 'files.zip/FER2013Train/fer0000002.png: ' in listed[0] and reason in listed[0]


def test_bad_zip_entry_is_left_out(tmp_path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  path = pathlib.Path(write(tmp_path / 'f.zip', tree()))
  content = path.read_bytes()
  at = content.index(picture(2)) + 200
  path.write_bytes(content[:at] + b'\0\0\0\0' + content[at + 4:])
  builder = build(tmp_path, tree(), source=str(path), strict=False)
  assert len(records(builder, 'train')) == 1
  assert 'CRC' in (builder.data_path / 'skipped.txt').read_text()


def test_strict_makes_a_bad_image_fatal_and_leaves_nothing(tmp_path):
  pytest.importorskip('dlib', reason='landmarks need dlib')
  with pytest.raises(UserError, match='FER2013Train/fer0000002.png: empty file'):
    build(tmp_path, broken(FER2013Train__fer0000002_png=b''))
  assert not list((tmp_path / 'data').glob('ferplus/majority/*.0'))


# The real labels.


@pytest.fixture(scope='module')
def real():
  if not REAL.exists():
    pytest.skip(f'the real data are not at {REAL}')
  return reader.open_files(str(REAL))


@pytest.mark.parametrize('rule, split', list(FINGERPRINTS))
def test_fingerprints_of_the_real_labels(real, rule, split):
  kept = [(row.name, labels.target(row.votes, rule)) for row in real[split].rows]
  text = ''.join(f'{name},{np.argmax(target)}\n' for name, target in kept if target is not None)
  assert hashlib.sha256(text.encode()).hexdigest() == FINGERPRINTS[rule, split]


@pytest.mark.parametrize('variant', list(ferplus.COUNTS))
def test_counts_of_the_real_labels(real, variant):
  assert set(ferplus.COUNTS) == {*labels.RULES, labels.UNLABELLED}
  for split, expected in ferplus.COUNTS[variant].items():
    rule = 'majority' if variant == labels.UNLABELLED else labels.rule_of_split(variant, split)
    targets = [labels.target(row.votes, rule) for row in real[split].rows]
    counts = collections.Counter(int(np.argmax(target)) for target in targets if target is not None)
    if variant == labels.UNLABELLED:
      assert (sum(target is None for target in targets),) == expected
    else:
      assert tuple(counts[i] for i in range(8)) == expected
