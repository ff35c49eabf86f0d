"""Subset lists: every form of line, what is counted, what is an error; exact duplicates; and the real FERPlus lists."""

import collections
import hashlib
import pathlib
import unicodedata

import numpy as np
import pytest

from fer_jax.data import face, pixels
from fer_jax.data.builders.ferplus import files, labels
from fer_jax.data.reading import subsets
from fer_jax.errors import UserError

DATA = pathlib.Path(__file__).resolve().parents[4] / 'shared' / 'data'
real = pytest.mark.skipif(not DATA.is_dir(), reason='needs the real FERPlus and the lists of RAN in ../shared/data')

HEX = '0123456789abcdef' * 3 + '01234567'


@pytest.mark.parametrize('line, entry', [
    ('1_fer0034656.png 8 0', ('fer0034656.png', 1)),
    ('0/fer0032226.jpg', ('fer0032226.jpg', 0)),
    ('test_0003_aligned 3 4', ('test_0003_aligned', 3)),
    ('0/test_0004_aligned.jpg', ('test_0004_aligned.jpg', 0)),
    (f'val/3/{HEX}/', (HEX, 3)),
    (f'0/{HEX}.jpg', (f'{HEX}.jpg', 0)),
    (f'7/{HEX}/8.jpg', (HEX, 7)),
    ('fer0032226.png', ('fer0032226.png', None)),
    ('1_fer0032226.png', ('1_fer0032226.png', None)),
    ('0003.png', ('0003.png', None)),
    ('test/happy/0.png', ('test/happy/0.png', None)),
    ('test/happy/my face.png', ('test/happy/my face.png', None)),
    ('my face 2.JPG', ('my face 2.JPG', None)),
    ('../müde/x', ('../müde/x', None)),
    ('1/2/3/4.jpg', ('1/2/3/4.jpg', None)),
])
@pytest.mark.parametrize('end', ['', '\n', '\r\n', '\n\n'])
def test_forms_of_lines(line, entry, end, tmp_path):
  path = tmp_path / 'list.txt'
  path.write_bytes(f'other.png{end or chr(10)}{line}{end}'.encode())
  assert subsets.read_list(path) == [('other.png', None, 'other.png'), (*entry, line)]


@pytest.mark.parametrize('line', ['a b', 'happy/', '/', 'test_0003_aligned 3', '1_a.png 8 x', '3 a.jpg', 'a.jpg 3'])
def test_a_malformed_line_is_named_with_its_number(line, tmp_path):
  path = tmp_path / 'list.txt'
  path.write_text(f'a.png\r\n\r\n{line}\r\n')
  with pytest.raises(UserError, match=r'list\.txt, line 3: .* names no face'):
    subsets.read_list(path)


def test_missing_empty_and_binary_files(tmp_path):
  with pytest.raises(UserError, match='cannot read the subset list .*nothing.txt: No such file'):
    subsets.read_list(tmp_path / 'nothing.txt')
  (tmp_path / 'empty.txt').write_text('\n')
  with pytest.raises(UserError, match='empty.txt is empty'):
    subsets.read_list(tmp_path / 'empty.txt')
  (tmp_path / 'image.png').write_bytes(face.png(np.zeros((4, 4), np.uint8)).getvalue())
  for path, said in ((tmp_path / 'image.png', 'it is no text'), ('a\0b', 'that is no path'),
                     ('~nobody-of-this-name/list.txt', 'there is no user'), (tmp_path, 'Is a directory')):
    with pytest.raises(UserError, match=said):
      subsets.read_list(path)


def test_lists_are_named_by_their_files(tmp_path):
  for folder in ('a', 'b'):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / 'pose.txt').write_text('x.png')
  path = tmp_path / 'a' / 'pose.txt'
  assert subsets.read_lists([path, str(path)]) == {'pose': [('x.png', None, 'x.png')]}
  with pytest.raises(UserError, match="two subset lists are called 'pose'"):
    subsets.read_lists([path, tmp_path / 'b' / 'pose.txt'])


@pytest.mark.parametrize('lines, rows, unmatched', [
    (['test/happy/0.png', 'test/sad/1.png'], [0, 3], 0),  # As the data set has them, though stems come twice.
    (['test/happy/0.png', 'test/happy/0.png'], [0], 0),
    (['happy/0.png', './test/sad/0.jpg', '/data/faces/test/sad/1.png'], [0, 1, 3], 0),  # Less of it, or more.
    (['train/happy/0.png', '0.png', 'other/sad/0.png', 'test/0.png'], [], 4),  # Another face, or two alike.
    (['2'], [4], 0), (['val/3/5.png'], [5], 0), (['3/6.png', '0/7.png'], [6, 7], 0),
    (['my face.png', unicodedata.normalize('NFD', 'test/müde/ä.png')], [8, 9], 0)])
def test_full_names_are_never_ambiguous(lines, rows, unmatched, tmp_path):
  names = ['test/happy/0.png', 'test/sad/0.png', 'test/happy/1.png', 'test/sad/1.png', 'test/sad/2.png', 'val/3/5.png',
           'test/3/6.png', '7.png', 'test/sad/my face.png', 'test/müde/ä.png']
  (tmp_path / 'list.txt').write_text('\n'.join(lines))
  found = subsets.match(subsets.read_list(tmp_path / 'list.txt'), names, np.full(10, -1))
  assert np.flatnonzero(found.mask).tolist() == rows and found.unmatched == unmatched
  assert found.listed == len(lines) == found.duplicates + unmatched + len(rows)


def test_matching_counts_what_does_not_fit():
  names = ['folder/a.png', 'b.png', 'c.png', 'd.png', 'twice.png', 'twice.jpg']
  entries = [('c.jpg', 2), ('a', 1), ('c.jpg', 0), ('nobody.jpg', 0), ('d.jpg', 3), ('twice', 0), ('b.jpg', None)]
  entries = [subsets.Entry(*entry, entry[0]) for entry in entries]
  found = subsets.match(entries, names, np.array([0, 1, 2, -1, 0, 0]))
  assert found.mask.tolist() == [True, True, True, True, False, False]
  assert (found.listed, found.duplicates, found.unmatched, found.disagreeing) == (7, 1, 2, 1)


def make_record(image):
  return {'image': face.png(image).getvalue(), 'name': b'x.png'}


@pytest.fixture(scope='module')
def ferplus():
  """{split: [(name, label, file)]} of the real zip under the majority rule, in the order of the files."""
  splits = {}
  for name, split in files.open_files(str(DATA / 'ferplus.zip')).items():
    targets = [(row, labels.target(row.votes, 'majority')) for row in split.rows]
    splits[name] = [(row.name, int(np.argmax(target)), row.image) for row, target in targets if target is not None]
  return splits


@real
@pytest.mark.parametrize('name, count, classes', [
    ('occlusion', 605, [160, 122, 133, 125, 23, 3, 36, 3]), ('pose30', 1170, [465, 286, 129, 151, 101, 4, 28, 6]),
    ('pose45', 633, [271, 141, 60, 89, 51, 1, 16, 4])])
def test_the_real_ferplus_lists_fit_the_majority_rule(ferplus, name, count, classes):
  names, truth = [row[0] for row in ferplus['test']], np.array([row[1] for row in ferplus['test']])
  found = subsets.match(subsets.read_list(DATA / 'ran_lists' / f'ferplus_{name}.txt'), names, truth)
  assert found.mask.sum() == found.listed == count and len(names) == 3137
  assert (found.duplicates, found.unmatched, found.disagreeing) == (0, 0, 0)
  assert np.bincount(truth[found.mask], minlength=8).tolist() == classes


@real
@pytest.mark.parametrize('name, lines, unique, first', [
    ('rafdb_occlusion', 735, 734, ('test_0003_aligned', 3)), ('rafdb_pose30', 1247, 1247, ('test_0004_aligned.jpg', 0)),
    ('rafdb_pose45', 558, 558, ('test_0004_aligned.jpg', 0)), ('affectnet_occlusion', 683, 683, None),
    ('affectnet_pose30', 1949, 1944, None), ('affectnet_pose45', 985, 983, None)])
def test_the_other_real_lists_are_read(name, lines, unique, first):
  entries = subsets.read_list(DATA / 'ran_lists' / f'{name}.txt')
  assert len(entries) == lines and len({entry[0] for entry in entries}) == unique
  assert first in (None, entries[0][:2])
  counts = collections.Counter(entry.label for entry in entries)
  assert set(counts) == set(range(8 if name.startswith('affectnet') else 7))
  if name.startswith('affectnet'):
    assert {len(entry[0].removesuffix('.jpg')) for entry in entries} == {56}


@real
def test_real_duplicates(ferplus):
  read = lambda split: [pixels.digest(pixels.decode({'image': file.read(), 'name': name}))
                        for name, _, file in ferplus[split]]
  alone = ~np.isin(read('test'), read('train') + read('valid'))
  assert len(alone) == 3137 and (~alone).sum() == 254
  duplicates = sorted(row[0] for row, kept in zip(ferplus['test'], alone, strict=True) if not kept)
  digest = hashlib.sha256(''.join(f'{name}\n' for name in duplicates).encode()).hexdigest()
  assert digest == 'b666b4d0a74d4db5f7b8d2ecc6c0b6de8023ff365ddc4b307c45eb52a1471613'
