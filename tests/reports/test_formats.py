"""Tables in their forms: every one tells all, cells and notes come back, and nothing of the text becomes markup."""

import contextlib
import csv
import io
import re
import xml.etree.ElementTree as ElementTree

import markupsafe
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_jax import command_line
from fer_jax.errors import UserError
from fer_jax.reports import template
from fer_jax.reports.formats import FORMS, Column, Line, Table, check_out, deliver, render, show
from fer_jax.runtime import cluster

COLUMNS = (Column('row', 'l'), Column('metric', 'p{.1\\linewidth}'), Column('ours'), Column('marks'), Column('% from'))
TABLE = Table('50 % & more_', COLUMNS, (
    Line({'row': 'a|b_c', 'metric': 'accuracy', 'ours': '85.00', 'marks': 'LEAKY: [x]', '% from': '84'},
         ('first, "quoted"', 'second'), 'leaky'),
    Line({'row': 'd {#$}', 'metric': 'pose > 30'}, ('second',))), ('of the table',))
OTHER = Table('other', (Column('row'), Column('mean', apart=(' ± ', ('', ' sd'))), Column('95 %', apart=(
    ' to ', (' from', ' to')))), (Line({'row': 'e', 'mean': '1 ± 2', '95 %': '-1 to 3'}), Line({'mean': '4'})))


def test_csv_parses_back():
  rows = list(csv.DictReader(io.StringIO(render([TABLE, TABLE], '.csv'))))
  assert len(rows) == 4 and list(rows[0]) == ['table', *(column.name for column in COLUMNS), 'notes']
  assert rows[0] == {'table': '50 % & more_', 'row': 'a|b_c', 'metric': 'accuracy', 'ours': '85.00',
                     'marks': 'LEAKY: [x]', '% from': '84', 'notes': 'first, "quoted" second'}
  assert rows[3]['ours'] == '' and rows[3]['row'] == 'd {#$}'


def test_csv_of_tables_with_other_columns_has_all_of_them_and_numbers_apart():
  rows = list(csv.DictReader(io.StringIO(render([TABLE, OTHER], '.csv'))))
  assert list(rows[0]) == ['table', *(column.name for column in COLUMNS), 'mean', 'mean sd', '95 % from', '95 % to',
                           'notes']
  assert [rows[2][name] for name in ('table', 'row', 'mean', 'mean sd', '95 % from', '95 % to', 'metric')] == [
      'other', 'e', '1', '2', '-1', '3', '']
  assert [rows[3][name] for name in ('row', 'mean', 'mean sd', '95 % from')] == ['', '4', '', '']


def test_markdown_has_its_columns_and_notes():
  lines = render([TABLE], '.md').splitlines()
  rows = [re.split(r'(?<!\\)\|', line)[1:-1] for line in lines if line.startswith('|')]
  assert [len(row) for row in rows] == [len(COLUMNS) + 1] * 4
  assert rows[2][0].strip() == r'a\|b\_c' and rows[2][-1].strip() == '1, 2' and rows[3][-1].strip() == '2'
  assert '1. first, "quoted"' in lines and '2. second' in lines and '3. of the table' in lines


def test_latex_is_escaped():
  text = render([TABLE], '.tex')
  assert r'50 \% \& more\_' in text and r'{d \{\#\$\}}' in text and r'{pose $>$ 30}' in text
  assert r'\begin{longtable}{lp{.1\linewidth}rrrl}' in text and r'\noindent 3. of the table\par' in text
  rows = [line for line in text.splitlines() if line.startswith('{')]
  assert [len(re.findall(r'(?<!\\)&', row)) for row in rows] == [len(COLUMNS)] * 3
  assert not re.search(r'(?<!\\)[%_#]', '\n'.join(rows))
  assert r'{1 $\pm$ 2}' in render([OTHER], '.tex')


def test_text_keeps_brackets_and_shows_leaky_lines_in_red(monkeypatch):
  text = render([TABLE], '')
  assert 'LEAKY: [x]' in text and '2. second' in text and '3. of the table' in text and '\x1b' not in text
  monkeypatch.setenv('FORCE_COLOR', '1')
  monkeypatch.setenv('TERM', 'xterm')
  lines = render([TABLE], '').splitlines()
  assert ['\x1b[31m' in line for line in lines if 'a|b_c' in line or 'pose > 30' in line] == [True, False]


@pytest.mark.parametrize('name, shown', [
    *((name, name) for name in ('sad [/]', '[/]', '[red]sad', 'sad\\', r'\[', ':smile:', 'fröhlich ☺')),
    ('\x1b[2Jsad\x07', r'\x1b[2Jsad\x07'), ('sad\rhappy\x9b1m', r'sad\rhappy\x9b1m'), ('\u202edas', r'\u202edas')])
def test_names_are_printed_as_they_are_and_not_obeyed(name, shown, capsys):
  table = Table(f'of {name}.', (Column(f'column {name}.'), Column('b')), (Line({f'column {name}.': f'cell {name}.'}, (
      f'note {name}.',)),), (f'end {name}.',))
  show(f'sentence {name}.', table)
  said = capsys.readouterr().out
  for where in ('sentence', 'of', 'column', 'cell', '1. note', '2. end'):
    assert f'{where} {shown}.' in said, where
  for print_it in (lambda: cluster.say(f'a {name}.'), lambda: command_line._fail(UserError(f'a {name}.'))):
    with contextlib.suppress(SystemExit):
      print_it()
    assert f'a {shown}.\n' in ''.join(capsys.readouterr())


@given(st.text(st.characters(codec='utf-8', exclude_categories=('Cc', 'Cs', 'Co', 'Cn'))))
def test_html_is_well_formed_and_shows_the_text(text):
  table = Table(text, (Column('a'), Column(text + ' b')), (Line({'a': text}, (text + '!',), 'leaky'),), ('end',))
  page = template.ENVIRONMENT.get_template('macros.html').module.noted(table)
  tree = ElementTree.fromstring(f'<div>{page}</div>')
  assert tree.find('h3').text == (text or None) and tree.find('.//td').text == (text or None)
  assert [cell.text for cell in tree.iter('th')] == ['a', text + ' b', 'notes']
  assert [note.text for note in tree.iter('li')] == [text + '!', 'end']
  assert tree.findall('.//tr')[1].get('class') == 'leaky'
  assert markupsafe.escape(text) in page


def test_the_ending_of_the_file_says_the_form(tmp_path):
  for form in ('.md', '.csv', '.tex'):
    path = tmp_path / f'table{form}'
    check_out(str(path))
    assert deliver([TABLE], path) == f'Written: {path}' and path.read_text() == render([TABLE], form)
  assert deliver([TABLE], None) == render([TABLE], '').removesuffix('\n')
  for path in ('a.txt', 'folder.md/a'):
    with pytest.raises(UserError, match=f'--out={path}: the ending says the form; give a name that ends in .md, .csv'):
      check_out(path)


def test_no_tables_are_an_empty_text():
  assert {render([], form) for form in FORMS} == {'', 'table,notes\n', '% Needs the packages booktabs and longtable.'}
