"""A headless Chromium by its DevTools protocol over two pipes, and a server of a folder: no package beside the browser.

``chromium --remote-debugging-pipe`` reads commands as JSON from descriptor 3 and writes answers and events to 4, each
ended by a zero byte.
"""

import contextlib
import fcntl
import functools
import http.server
import json
import os
import select
import shutil
import subprocess
import tempfile
import threading
import time

import pytest


@contextlib.contextmanager
def served(folder):
  """Serves a folder from a port of this machine; gives the address and the list of paths that were asked for."""
  asked = []

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
      asked.append(self.path)

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=folder))
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield f'http://127.0.0.1:{server.server_port}', asked
  server.shutdown()
  server.server_close()


class Browser:
  """One page. ``requests`` are the addresses that it asked for, ``complaints`` what its console says of errors."""

  def __init__(self, process, send, receive):
    self._process, self._send, self._receive = process, send, receive
    self._count, self._rest, self._session = 0, b'', None
    self.requests, self.complaints = [], []
    target = self.do('Target.createTarget', url='about:blank')['targetId']
    self._session = self.do('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'Network', 'DOM'):
      self.do(f'{domain}.enable')

  def do(self, method, **parameters):
    """Gives a command of the protocol and returns its result."""
    self._count += 1
    message = {'id': self._count, 'method': method, 'params': parameters}
    message |= {'sessionId': self._session} if self._session else {}
    os.write(self._send, json.dumps(message).encode() + b'\0')
    while True:
      answer = self._next()
      if answer.get('id') == self._count:
        assert 'error' not in answer, f"{method}: {answer['error']}"
        return answer['result']

  def _next(self, seconds=30):
    """The next answer or event; events leave their traces."""
    end = time.monotonic() + seconds
    while b'\0' not in self._rest:
      assert select.select([self._receive], [], [], max(end - time.monotonic(), 0))[0], 'the browser says nothing'
      more = os.read(self._receive, 1 << 20)
      assert more, 'the browser has ended'
      self._rest += more
    line, self._rest = self._rest.split(b'\0', 1)
    message = json.loads(line)
    match message.get('method'), message.get('params'):
      case 'Network.requestWillBeSent', event:
        self.requests.append(event['request']['url'])
      case 'Runtime.exceptionThrown', event:
        self.complaints.append(event['exceptionDetails'])
      case 'Runtime.consoleAPICalled', event if event['type'] in ('error', 'warning', 'assert'):
        self.complaints.append(event)
      case 'Log.entryAdded', event if event['entry']['level'] in ('error', 'warning'):
        self.complaints.append(event['entry'])
    return message

  def open(self, address):
    """Goes to an address."""
    self.do('Page.navigate', url=address)

  def value(self, script):
    """The value of a JavaScript expression, awaited, as JSON carries it."""
    found = self.do('Runtime.evaluate', expression=script, awaitPromise=True, returnByValue=True)
    assert 'exceptionDetails' not in found, found['exceptionDetails']
    return found['result'].get('value')

  def until(self, found, seconds=20):
    """Calls a function until what it returns is true, and returns that."""
    end = time.monotonic() + seconds
    while not (value := found()):
      assert time.monotonic() < end, f'it never came; the page says: {self.value("document.body.innerText")}'
      time.sleep(.03)
    return value

  def text(self, name):
    """What is to be read in the element of an id; '' where it is hidden, None where there is none."""
    return self.value(f"document.getElementById('{name}')?.checkVisibility() === false ? '' : "
                      f"document.getElementById('{name}')?.innerText")

  def click(self, name):
    """Clicks the element of an id."""
    self.value(f"document.getElementById('{name}').click()")

  def choose(self, name, path):
    """Gives the file input of an id a file."""
    node = self.do('DOM.querySelector', nodeId=self.do('DOM.getDocument')['root']['nodeId'], selector=f'#{name}')
    self.do('DOM.setFileInputFiles', nodeId=node['nodeId'], files=[str(path)])

  def drag(self, start, end, **options):
    """Presses the mouse at one point of the window, moves it to another, and lets go."""
    mouse = lambda kind, x, y: self.do('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', buttons=1,
                                       clickCount=1, **options)
    mouse('mousePressed', *start)
    mouse('mouseMoved', (start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    mouse('mouseMoved', *end)
    mouse('mouseReleased', *end)

  def press(self, key, modifiers=0):
    """Presses a key by its name, 8 being Shift."""
    for kind in ('rawKeyDown', 'keyUp'):
      self.do('Input.dispatchKeyEvent', type=kind, key=key, modifiers=modifiers)


@contextlib.contextmanager
def opened(*options):
  """A ``Browser`` with an empty profile; skips where there is no Chromium."""
  program = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
  if program is None:
    pytest.skip('no Chromium here')
  (commands, send), (receive, answers) = os.pipe(), os.pipe()
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    # Beyond 4, so that the shell does not close one of them in making the other 3 or 4.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands, answers)]
    process = subprocess.Popen(
        ['bash', '-c', 'exec "$@" 3<&{} 4>&{}'.format(*ends), 'bash', program, '--headless', '--remote-debugging-pipe',
         '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
         '--window-size=1200,1200', f'--user-data-dir={profile}', *options],
        pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for end in (commands, answers, *ends):
      os.close(end)
    try:
      browser = Browser(process, send, receive)
      yield browser
      browser._session = None
      browser.do('Browser.close')
    finally:
      os.close(send)
      os.close(receive)
      try:
        process.wait(10)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
