"""Long work in a log says a line every so often, whatever it is waiting for; on a terminal there is a bar."""

import io
import re
import time

import pytest
import tqdm

from fer_jax.runtime import progress


@pytest.fixture
def lines(capsys, monkeypatch):
  """What was said on standard error since the last call."""
  monkeypatch.setattr(progress, 'SECONDS', 0.05)
  return lambda: capsys.readouterr().err.split('\n')[:-1]


def test_lines_have_count_rate_and_time_left(lines):
  with progress.progress(total=2000, desc='work', unit='face', initial=500) as bar:
    bar.update(500)
    bar.set_postfix({'loss': '1.25'}, refresh=False)
    time.sleep(0.3)
  said = lines()
  assert len(said) >= 3  # The last one on closing.
  for line in said:
    assert re.fullmatch(r'work: 1,000 of 2,000 faces, [\d,]+\.\d a second, 00:0\d left, loss 1.25', line), line


def test_a_line_comes_while_nothing_gets_done(lines):
  bar = progress.progress(desc='work', unit='face')
  time.sleep(0.15)
  bar.total = 10
  time.sleep(0.15)
  bar.close()
  said = lines()
  assert said[0] == 'work: 0 faces, 0.0 a minute' and said[-1] == 'work: 0 of 10 faces, 0.0 a minute'
  time.sleep(0.15)
  assert not lines()  # Closed is closed.


def test_what_is_gone_through_is_counted(lines):
  assert list(progress.progress(range(7), desc='work')) == list(range(7)) and not lines()  # Too short for a line.
  for _ in progress.progress(range(3), desc='work'):
    time.sleep(0.1)
  assert lines()[-1].startswith('work: 3 of 3 items, ')


def test_a_terminal_gets_a_bar(monkeypatch):
  terminal = io.StringIO()
  monkeypatch.setattr(terminal, 'isatty', lambda: True, raising=False)
  monkeypatch.setattr('sys.stderr', terminal)
  with progress.progress(total=2, desc='work') as bar:
    assert isinstance(bar, tqdm.tqdm)
    bar.update(2)
  assert '\r' in terminal.getvalue() and '2/2' in terminal.getvalue()
  terminal.truncate(0)
  assert list(progress.progress([1], disable=True)) == [1] and not terminal.getvalue()
