"""Files in folders and zips: the same names, contents and errors from both."""

import os
import unicodedata
import zipfile

import pytest

from fer_jax.data.preparing import files
from fer_jax.errors import UserError, raise_if
from tests import trees

CONTENT = {'b/2.png': b'two', 'b/é 漢.PNG': b'not ascii', 'a.csv': '\ufeffÄ\r\n'.encode(), 'b/c/1.jpeg': b'one',
           '.hidden/x.png': b'', 'b/.DS_Store': b'', '__MACOSX/b/2.png': b''}
SEEN = ['a.csv', 'b/2.png', 'b/c/1.jpeg', 'b/é 漢.PNG']


@pytest.fixture(params=['folder', 'f.zip'])
def path(request, tmp_path):
  path = tmp_path / request.param
  if path.suffix:
    with zipfile.ZipFile(path, 'w') as archive:
      archive.mkdir('b')
      for name, content in CONTENT.items():
        archive.writestr(name, content)
  else:
    for name, content in CONTENT.items():
      (path / name).parent.mkdir(parents=True, exist_ok=True)
      (path / name).write_bytes(content)
  return path


def test_a_tree_lists_what_is_not_hidden(path):
  tree = files.open_tree(str(path), 'how to')
  assert list(tree.files) == SEEN and tree.root == str(path)
  assert {name: file.read() for name, file in tree.files.items()} == {name: CONTENT[name] for name in SEEN}
  assert list(tree.images()) == SEEN[1:] and tree.folders() == ['b'] and tree.listing() == 'a.csv, b/'
  assert str(tree.files['b/2.png']) == f'{path}/b/2.png'
  inner = tree.below('b/')
  assert list(inner.files) == ['2.png', 'c/1.jpeg', 'é 漢.PNG'] and inner.root == f'{path}/b'
  assert list(tree.files['a.csv'].lines()) == [(1, 'Ä')]


def test_the_level_of_a_data_set(path):
  tree = files.open_tree(str(path), '')
  assert tree.level_of(r'c/[^/]*\.jpeg').root == f'{path}/b'
  assert tree.level_of(r'nothing').root == tree.root
  with pytest.raises(UserError, match='more than once: below ./, b/'):
    tree.level_of(r'(a\.csv|2\.png)')


def test_stamps_change_with_the_content(tmp_path):
  file = files.File(str(tmp_path / 'a'))
  assert file.stamp() == (-1, -1)
  (tmp_path / 'a').write_bytes(b'1')
  first = file.stamp()
  (tmp_path / 'a').write_bytes(b'2')
  os.utime(tmp_path / 'a', ns=(0, first[1] + 1))
  assert len({first, file.stamp(), (-1, -1)}) == 3


def test_a_lost_quote_spoils_its_own_line_alone(tmp_path):
  (tmp_path / 'a.csv').write_bytes('\ufeffa, "b, c"\r\n\r\n"d\ne"f,"g\n h ,i'.encode())
  rows, problems = files.read_lines(files.File(str(tmp_path / 'a.csv')).lines(), files.fields_of)
  assert rows == [(1, ['a', 'b, c']), (3, None), (4, None), (5, ['h ', 'i'])]
  assert [problem.partition(':')[0] for problem in problems] == ['line 3', 'line 4']
  (tmp_path / 'a.csv').write_bytes(b'a\n\xe9\n')
  with pytest.raises(UserError, match='a.csv cannot be read as UTF-8 text'):
    list(files.File(str(tmp_path / 'a.csv')).lines())


def test_what_cannot_be_read(tmp_path):
  with pytest.raises(ValueError, match='unreadable .*No such file'):
    files.File(str(tmp_path / 'none')).read()
  (tmp_path / 'latin').write_bytes(b'caf\xe9')
  with pytest.raises(UserError, match='latin cannot be read as UTF-8 text'):
    list(files.File(str(tmp_path / 'latin')).lines())
  with zipfile.ZipFile(tmp_path / 'cut.zip', 'w') as archive:
    archive.writestr('a', b'a' * 1000)
  whole = (tmp_path / 'cut.zip').read_bytes()
  (tmp_path / 'bad.zip').write_bytes(whole[:100] + b'b' + whole[101:])
  with pytest.raises(ValueError, match='unreadable .*CRC'):
    files.open_tree(str(tmp_path / 'bad.zip'), '').files['a'].read()
  (tmp_path / 'cut.zip').write_bytes(whole[:-30])
  with pytest.raises(UserError, match='damaged one .*\nhow to'):
    files.open_tree(str(tmp_path / 'cut.zip'), 'how to')
  with pytest.raises(UserError, match='none does not exist.\nhow to'):
    files.open_tree(str(tmp_path / 'none'), 'how to')
  with pytest.raises(UserError, match='^how to$'):
    files.open_tree(None, 'how to')


def test_names_that_are_no_text_are_refused(tmp_path):
  try:
    open(os.fsencode(tmp_path) + b'/caf\xe9.png', 'w').close()
  except OSError as e:
    pytest.skip(f'this file system has names of text only: {e}')
  with pytest.raises(UserError, match=r"caf\\udce9.png' is not UTF-8 text; rename the file"):
    files.open_tree(str(tmp_path), '')


def test_problems_are_told_at_once_but_not_all():
  raise_if([], 'nothing')
  with pytest.raises(UserError) as e:
    raise_if([f'line {i}' for i in range(1030)], 'bad lines', '\nMend them.')
  lines = str(e.value).splitlines()
  assert lines[0] == 'bad lines (1,030):' and lines[20:] == ['  line 19', '  ... and 1,010 more', 'Mend them.']


def layout(tmp_path, links=(), files=('train/happy/1.png', 'train/sad/2.png', 'test/sad/3.png')):
  """A folder of files and {link: target}, beside a folder 'other' that holds one more file."""
  root = tmp_path / 'base'
  for name in (*(f'base/{name}' for name in files), 'other/x/4.png', 'beside.png'):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(name.encode())
  for link, target in dict(links).items():
    (root / link).symlink_to(target)
  return files_of(root)


def files_of(root):
  tree = files.open_tree(str(root), '')
  return list(tree.files), ' '.join(tree.notes)


PLAIN = ['test/sad/3.png', 'train/happy/1.png', 'train/sad/2.png']


@pytest.mark.parametrize('links, more, said', [
    ({'train/happy/loop': '..'}, [], 'train/happy/loop'),
    ({'train/happy/loop': '.'}, [], 'train/happy/loop'),
    ({'train/happy/up': '../../..'}, [], 'train/happy/up'),  # Above the root: whatever else lies there.
    ({'train/happy/a': '../sad', 'train/sad/b': '../happy', 'c': 'train'}, [], '3 link(s) to folders'),
    ({'train/happy/a': '../../../other', 'x': '../other/x'}, ['x/4.png'], '1 link(s) to folders'),
    ({'all': '../other'}, ['all/x/4.png'], ''),
    ({'train/happy/5.png': '1.png'}, ['train/happy/5.png'], '1 file(s) are links to others'),
    ({'test/sad/5.png': '../../../beside.png', 'test/sad/6.png': '../../../beside.png'},
     ['test/sad/5.png', 'test/sad/6.png'], '1 file(s) are links to others'),
    ({'train/happy/self': 'self', 'train/happy/9.png': 'nowhere'}, ['train/happy/9.png', 'train/happy/self'], ''),
])
def test_a_folder_is_read_once_whatever_links_lead_to_it(tmp_path, links, more, said):
  names, notes = layout(tmp_path, links)
  # What lies there itself keeps its name, though links to it may come first.
  assert names == sorted(PLAIN + more)
  assert said in notes and bool(said) == bool(notes)


def test_links_that_lead_around_a_folder_elsewhere(tmp_path):
  layout(tmp_path, {'a': '../other'})
  (tmp_path / 'other/x/back').symlink_to('../..')  # Around the other folder, and around the root.
  (tmp_path / 'other/x/base').symlink_to(tmp_path / 'base')
  names, notes = files_of(tmp_path / 'base')
  assert names == sorted([*PLAIN, 'a/x/4.png']) and '2 link(s)' in notes
  (tmp_path / 'link').symlink_to('base')
  assert files_of(f'{tmp_path}/link/') == (names, notes.replace('/base', '/link', 1).replace(
      f'{tmp_path}/base/a', f'{tmp_path}/link/a'))


def test_what_is_no_file_ends(tmp_path):
  os.mkfifo(tmp_path / 'pipe.png')
  with pytest.raises(ValueError, match='unreadable .not a file'):
    files.open_tree(str(tmp_path), '').files['pipe.png'].read()


@pytest.mark.parametrize('kind', ['folder', 'f.zip'])
def test_names_are_composed_whatever_wrote_them(tmp_path, kind):
  apart, together = (unicodedata.normalize(form, 'fröhlich/é.png') for form in ('NFD', 'NFC'))
  tree = files.open_tree(trees.write(tmp_path / kind, {apart: b'1'}), '')
  assert list(tree.files) == [together] and tree.files[together].read() == b'1'
  with pytest.raises(UserError, match=r'are written alike; rename one'):
    files.open_tree(trees.write(tmp_path / f'2{kind}', {apart: b'1', together: b'2'}), '')
  table = files.File(trees.write(tmp_path / 'list', {'a.csv': apart}) + '/a.csv')
  assert list(table.lines()) == [(1, together)]


def test_other_files_are_counted_in_one_sentence(tmp_path):
  kept = ['a.jfif', 'b.JPE', 'c.gif', 'd.pgm', 'e.jp2', 'f.avif', 'g.tga', 'h.ppm']
  others = ['x.heic', 'y.HEIC', 'z.txt', 'none', '.hidden.txt']
  tree = files.open_tree(trees.write(tmp_path, dict.fromkeys([*kept, *others], b'')), '')
  assert list(tree.images()) == kept
  note, = tree.others()
  assert '4 file(s)' in note and '(2 .heic, 1 no ending, 1 .txt), e.g. none' in note
