"""Figures and the HTML page of a run."""

import contextlib
import os
import sys

if 'matplotlib' not in sys.modules:
  # A notebook hands its own backend on to what it starts, where matplotlib may not know it and then cannot be imported.
  # Figures here need none. One that matplotlib knows stays what the environment asks for, for others.
  _backend = os.environ.pop('MPLBACKEND', '')
  import matplotlib
  if _backend:
    os.environ['MPLBACKEND'] = _backend
    with contextlib.suppress(ValueError):
      matplotlib.rcParams['backend'] = _backend
