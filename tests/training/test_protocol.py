"""What a network has seen and how it was chosen: the verdict on a number, against sets of rows."""

import dataclasses
import random
import re
import types

import numpy as np
import pytest

from configs import baseline, deepfever
from fer_jax.data.preparing import preparation
from fer_jax.data.reading import rows, splits
from fer_jax.errors import UserError
from fer_jax.training import protocol, setup, workdir

SHARDS = {'train': (40, 40, 17), 'valid': (23,), 'test': (20, 21)}
SPLITS = {name: types.SimpleNamespace(num_examples=sum(lengths), shard_lengths=list(lengths))
          for name, lengths in SHARDS.items()}


@dataclasses.dataclass
class Faces:
  """As much of a split as a verdict asks for; images of equal number are equal."""

  intervals: tuple
  images: np.ndarray = None
  identity: str = 'drawn'
  classes: tuple = ('a', 'b')
  fingerprint: str = ''
  restricted: bool = False

  def __post_init__(self):
    self.whole = types.SimpleNamespace(identity=self.identity, splits=SPLITS)
    self.places = rows.places(self.intervals)
    self.labels = np.zeros(len(self), int)

  def __len__(self):
    return len(self.places[1])


def piece(chance):
  """A random part of an expression, and the rows that Python's own slices give it."""
  split = chance.choice(list(SHARDS))
  size = SPLITS[split].num_examples
  unit = chance.choice(['', '%', 'shard', 'all', 'one'])
  if unit == 'all':
    return split, [(split, row) for row in range(size)]
  if unit == 'one':
    at = chance.randrange(len(SHARDS[split]))
    start = sum(SHARDS[split][:at])
    return f'{split}[{at}shard]', [(split, row) for row in range(start, start + SHARDS[split][at])]
  limit = {'': size, '%': 100, 'shard': len(SHARDS[split])}[unit]
  ends = [chance.choice([None, chance.randint(-limit, limit)]) for _ in range(2)]
  if ends == [None, None]:
    ends[0] = 0
  shown = ['' if end is None else f'{end}{unit}' for end in ends]
  if unit == '%':
    ends = [None if end is None else int(round(end * size / 100)) for end in ends]
  elif unit == 'shard':
    edges = [0, *np.cumsum(SHARDS[split])]
    # A shard's number counts from the end where it is negative; up to shard 0 is TFDS's word for all.
    ends = [ends[0], ends[1] or None]
    ends = [None if end is None else int(edges[end if end >= 0 else len(edges) - 1 + end]) for end in ends]
  return f"{split}[{':'.join(shown)}]", [(split, row) for row in range(size)[slice(*ends)]]


def expression(chance):
  pieces = [piece(chance) for _ in range(chance.choice([1, 1, 2, 3]))]
  separator = chance.choice(['+', ' + '])
  return separator.join(text for text, _ in pieces), [row for _, found in pieces for row in found]


def make(select='last', **data):
  config = baseline.get_config('synthetic_faces')
  with config.unlocked():
    config.select = select
    config.data.update(data)
  return setup.make_protocol(config)


def test_verdicts_and_counts_agree_with_sets_of_rows():
  chance, told = random.Random(0), make()
  for _ in range(10_000):
    (trained, seen), (tested, wanted) = expression(chance), expression(chance)
    ours, theirs = (rows.intervals(text, SPLITS) for text in (trained, tested))
    assert [*zip(*map(np.ndarray.tolist, rows.places(theirs)), strict=True)] == wanted, tested
    faces = Faces(theirs)
    verdict = protocol.verdict(told, [protocol.Seen('trained', intervals=ours, identity='drawn')], faces, tested)
    known = {*seen}
    count = sum(row in known for row in wanted)
    assert verdict['seen_in_training'] == count and verdict['leaky'] == (count > 0)
    assert verdict['reasons'] == [f'{count:,} of {len(wanted):,} {tested} images were trained on'] * bool(count)
    record = {'evaluations': {trained: 2, tested: 1}}
    if trained != tested:
      assert protocol.evaluated(record, faces, tested) == (
          {trained: 2, tested: 2}, (2 + 2 * bool({*seen} & {*wanted})) if wanted else 0)


@pytest.mark.parametrize('text', ['tset', 'train[', 'train[5]', 'train[:200%]', 'train[:98]', 'all[:5]', ''])
def test_what_is_no_split_is_said(text):
  with pytest.raises(UserError, match=f'bad split {re.escape(repr(text))}.*There are: train, valid, test'):
    rows.intervals(text, SPLITS)


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
  """The folder of the tiny drawn faces."""
  folder = str(tmp_path_factory.mktemp('drawn'))
  preparation.prepare(preparation.make_builder('synthetic_faces', 'tiny', folder))
  return folder


def open_faces(folder, split, **options):
  return splits.open_split('synthetic_faces', 'tiny', split, folder, **options)


def seen_by(config, folder, ancestors=()):
  """What a run of a config will have seen, as training finds it out."""
  with config.unlocked():
    config.data.dir, config.data.variant, config.data.size = folder, 'tiny', 32
  told = setup.make_protocol(config)
  holdout = told.data.open(told.chosen_by) if told.chosen_by else None
  return told, protocol.see(told, told.data.open_parts(), holdout, dict(ancestors))


def changed(made, **changes):
  with made.unlocked():
    for key, value in changes.items():
      made.update_from_flattened_dict({key.replace('__', '.'): value})
  return made


@pytest.mark.parametrize('changes, split, reasons', [
    ({}, 'test', []),
    ({}, 'valid', []),
    ({}, 'train[:25]', ['25 of 25 train[:25] images were trained on']),
    ({'data__train': 'train + test'}, 'test', ['32 of 32 test images were trained on']),
    ({'data__train': 'train+test[:90%]'}, 'test', ['29 of 32 test images were trained on']),
    ({'data__train': 'train+test[:90%]'}, 'test[90%:]', []),
    ({'data__train': 'all'}, 'test[-5:]', ['5 of 5 test[-5:] images were trained on']),
    ({'data__train': 'train+test', 'data__classes': ('happiness', 'anger')}, 'test',
     ['{} of 32 test images were trained on']),
    ({'data__holdout': 'test', 'select': 'holdout'}, 'test',
     ['the step of the network was chosen by the accuracy on 32 of 32 test images']),
    ({'data__holdout': 'valid+test[:3]', 'select': 'holdout'}, 'test',
     ['the step of the network was chosen by the accuracy on 3 of 32 test images']),
    ({'data__holdout': 'test'}, 'test', []),  # Looked at, but the last step is taken whatever it showed.
    ({'select': 'best_on_test'}, 'test[:9]',
     ['the step of the network was chosen by the accuracy on 9 of 9 test[:9] images']),
    ({'select': 'holdout'}, 'valid', ['the step of the network was chosen by the accuracy on 32 of 32 valid images']),
])
def test_runs_of_one_data_set(drawn, changes, split, reasons):
  told, seen = seen_by(changed(baseline.get_config('synthetic_faces'), **changes), drawn)
  faces = open_faces(drawn, split)
  if 'data__classes' in changes:
    known = sum(faces.classes[label] in changes['data__classes'] for label in faces.labels)
    assert 0 < known < 32
    reasons = [reason.format(known) for reason in reasons]
  assert protocol.verdict(told, seen, faces, split)['reasons'] == reasons


def test_sources_teachers_and_starts_are_followed(drawn):
  test = open_faces(drawn, 'test')
  made = lambda **changes: changed(deepfever.get_config('synthetic_faces:teacher'),
                                   **{'sources__triplets__count': 60, **changes})
  told, seen = seen_by(made(), drawn)
  assert protocol.verdict(told, seen, test, 'test')['reasons'] == []
  _, taught = seen_by(made(sources__triplets__split='test'), drawn)
  assert protocol.verdict(told, taught, test, 'test')['reasons'] == [
      "32 of 32 test images were trained on in the source 'triplets'"]
  _, absent = seen_by(made(sources__triplets__split='test', sources__triplets__parts=0), drawn)
  assert protocol.verdict(told, absent, test, 'test')['reasons'] == []
  chosen = [protocol.Seen.of(test, 'test', 'chosen')]
  _, student = seen_by(baseline.get_config('synthetic_faces'), drawn, {'teacher': [*taught, *chosen]})
  _, started = seen_by(baseline.get_config('synthetic_faces'), drawn, {'start': student, 'teacher': [
      protocol.Seen('unknown')]})
  verdict = protocol.verdict(told, student, test, 'test')
  assert verdict['seen_in_training'] == 32 and verdict['reasons'] == [
      "32 of 32 test images were trained on by its teacher in the source 'triplets'",
      'the step of its teacher was chosen by the accuracy on 32 of 32 test images']
  assert protocol.verdict(told, started, test, 'test')['reasons'] == [
      "32 of 32 test images were trained on by its teacher (of the run it started from) in the source 'triplets'",
      'the step of its teacher (of the run it started from) was chosen by the accuracy on 32 of 32 test images',
      'what its teacher was trained on is not known']


def test_a_run_of_before_whose_teacher_bears_its_own_name(drawn, tmp_path):
  config = changed(baseline.get_config('synthetic_faces'), data__dir=drawn, data__variant='tiny',
                   data__train='train+test', teacher__workdir=str(tmp_path / 'b'))
  workdir.open_workdir(setup.settings(config), tmp_path / 'a', [])
  config.teacher.workdir = str(tmp_path / 'a')
  workdir.open_workdir(setup.settings(config), tmp_path / 'b', [])
  found = [(one.how, one.who, one.split) for one in setup.seen(tmp_path / 'a')]
  assert found == [('trained', 'the network', 'train+test'), ('trained', 'its teacher', 'train+test'),
                   ('unknown', 'its teacher (of its teacher)', '')]


def test_another_data_set_is_compared_by_its_images():
  read = rows.intervals('train', SPLITS)
  ours = Faces(read, images=np.arange(97, dtype=np.uint64))
  seen = [protocol.Seen.of(ours, 'train')]
  theirs = Faces(rows.intervals('test', SPLITS), identity='another', images=np.arange(90, 131, dtype=np.uint64))
  assert protocol.verdict(make(), seen, theirs, 'test')['reasons'] == ['7 of 41 test images were trained on']
  # Duplicates inside of one data set are its own affair.
  within = dataclasses.replace(theirs, identity='drawn')
  assert protocol.verdict(make(), seen, within, 'test')['reasons'] == []


def test_images_of_some_classes_are_seen_under_any_label():
  ours = Faces(rows.intervals('train', SPLITS), images=np.arange(97, dtype=np.uint64), restricted=True)
  ours.images = ours.images[:10]  # The rest is of other classes.
  seen = [protocol.Seen.of(ours, 'train')]
  theirs = Faces(rows.intervals('train', SPLITS), images=np.arange(97, dtype=np.uint64), classes=('c', 'd'))
  assert protocol.verdict(make(), seen, theirs, 'train')['seen_in_training'] == 10


def test_what_was_seen_is_written_down_and_read_again(drawn, tmp_path):
  told, seen = seen_by(changed(baseline.get_config('synthetic_faces'), data__train='train+test[:10]',
                               data__classes=('happiness', 'anger')), drawn)
  record = {}
  protocol.remember(tmp_path, record, seen)
  back = protocol.recall(tmp_path, record)
  for split in ('test', 'train', 'valid'):
    faces = open_faces(drawn, split)
    assert protocol.verdict(told, back, faces, split) == protocol.verdict(told, seen, faces, split)
  assert protocol.recall(tmp_path, {}) is None
  (tmp_path / protocol.IMAGES).write_bytes(b'half')
  with pytest.raises(UserError, match=r'seen\.npz.* gone or damaged.*train the run again'):
    protocol.recall(tmp_path, record)


def test_a_slice_of_an_evaluated_split_was_evaluated(drawn):
  count = lambda split, **before: protocol.evaluated({'evaluations': before}, open_faces(drawn, split), split)[1]
  assert count('test[:99%]', test=1) == 2 and count('valid', test=1) == 1
  assert count('test', **{'test[:10]': 1, 'test[5:]': 1}) == 3 and count('test', **{'gone': 1, 'test[:50%]': 1}) == 2
  watched = {'holdout_evaluations': {'valid+test[:3]': 40}, 'evaluations': {'test': 1}}  # During training.
  assert protocol.evaluated(watched, open_faces(drawn, 'test'), 'test') == ({'test': 2}, 42)
  assert protocol.evaluated(watched, open_faces(drawn, 'test[3:]'), 'test[3:]')[1] == 2
