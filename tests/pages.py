"""Reads HTML pages, and what commands print."""

import contextlib
import html.parser
import io
import os
from unittest import mock

_VOID = {'meta', 'link', 'img', 'br', 'wbr'}


def printed(function, *arguments, width=160, **options):
  """What a function prints on a console of so many columns."""
  with mock.patch.dict(os.environ, COLUMNS=str(width)), contextlib.redirect_stdout(io.StringIO()) as file:
    function(*arguments, **options)
  return file.getvalue()


class Page(html.parser.HTMLParser):
  """Collects ids, addresses and classes, and insists that tags nest."""

  def __init__(self, text):
    super().__init__()
    self.open, self.ids, self.addresses, self.classes = [], [], [], []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.ids += [attrs['id']] if 'id' in attrs else []
    self.classes += (attrs.get('class') or '').split()
    self.addresses += [v for key, v in attrs.items() if key in ('src', 'href', 'xlink:href', 'srcset', 'action')]
    if tag not in _VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.handle_starttag(tag, attrs)
    if tag not in _VOID:
      self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag
