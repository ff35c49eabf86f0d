"""gke/: the manifests it makes, checked against the schemas of Kubernetes and of JobSet's fields that are used.

What this cannot see: whether a cluster has such nodes, JobSet, the bucket's driver and the rights. Nothing here was
ever applied to one.
"""

import copy
import json
import shutil

import pytest
import yaml

from tests.launch.launchers import ROOT, call, program

kubernetes_validate = pytest.importorskip('kubernetes_validate', reason='kubernetes-validate is not installed')
jsonschema = pytest.importorskip('jsonschema')

TRAIN = ['python', '-m', 'fer_jax.train', '--config=configs/pal.py:ferplus', "--config.losses.pal.taps=('a', 'b')",
         '--config.x="$HOME \\ $(NAME)"', '--workdir=gs://b/runs/pal']
COMMON = ('--name=pal', '--image=europe-docker.pkg.dev/p/r/fer_jax:tpu', '--data_bucket=faces')
KUBERNETES = '1.31'


def closed(required, **properties):
  return {'type': 'object', 'additionalProperties': False, 'required': required, 'properties': properties}


# jobset.x-k8s.io/v1alpha2 in our words, from its Go types: the fields that are used, and what they may be. 'template'
# is Kubernetes' own Job and is validated as one.
NAME = {'type': 'string', 'pattern': '^[a-z]([-a-z0-9]*[a-z0-9])?$', 'maxLength': 63}
RULE = closed(
    ['name', 'action'],
    name={'type': 'string', 'pattern': '^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$'},
    action={'enum': ['FailJobSet', 'RestartJobSet', 'RestartJobSetAndIgnoreMaxRestarts', 'RestartJob',
                     'RestartJobAndIgnoreMaxRestarts']},
    # JobSet's webhook accepts the reasons that Kubernetes gives.
    onJobFailureReasons={'type': 'array', 'uniqueItems': True, 'items': {
        'enum': ['BackoffLimitExceeded', 'DeadlineExceeded', 'FailedIndexes', 'MaxFailedIndexesExceeded',
                 'PodFailurePolicy']}},
    targetReplicatedJobs={'type': 'array', 'items': NAME})
JOBSET = closed(
    ['apiVersion', 'kind', 'metadata', 'spec'],
    apiVersion={'const': 'jobset.x-k8s.io/v1alpha2'},
    kind={'const': 'JobSet'},
    metadata=closed(['name'], name=NAME, namespace=NAME, annotations={
        'type': 'object', 'additionalProperties': {'type': 'string'}}),
    spec=closed(
        ['replicatedJobs'],
        failurePolicy=closed([], maxRestarts={'type': 'integer', 'minimum': 0}, rules={'type': 'array', 'items': RULE}),
        replicatedJobs={'type': 'array', 'minItems': 1, 'items': closed(
            ['name', 'template'], name=NAME, replicas={'type': 'integer', 'minimum': 1}, template={'type': 'object'})}))


def manifest(platform, *options):
  status, out, err = call('gke/run.sh', platform, *COMMON, *options, '--dry_run', '--', *TRAIN)
  assert status == 0, err
  assert out.startswith('# kubectl create --filename=-\n') and '${' not in out
  return yaml.safe_load(out)


def check(jobset):
  jsonschema.validate(jobset, JOBSET)
  for job in jobset['spec']['replicatedJobs']:
    alone = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': 'x'}, **job['template']}
    kubernetes_validate.validate(alone, KUBERNETES, strict=True)


def job(jobset):
  [replicated] = jobset['spec']['replicatedJobs']
  return replicated['template']['spec']


def pod(jobset):
  return job(jobset)['template']['spec']


@pytest.mark.parametrize('platform, options', [
    ('tpu', ()), ('tpu', ('--topology=2x2x4', '--accelerator=tpu-v5p-slice', '--spot')), ('gpu', ()),
    ('gpu', ('--nodes=4', '--spot', '--namespace=team', '--service_account=trainer', '--restarts=0'))])
def test_manifests_are_valid(platform, options):
  check(manifest(platform, *options))


@pytest.mark.parametrize('spoil, message', [
    (lambda m: m['spec'].update(failurePolicies={}), 'failurePolicies'),
    (lambda m: m['spec']['failurePolicy']['rules'][0].update(action='Restart'), 'Restart'),
    (lambda m: job(m).update(backofLimit=0), 'backofLimit'),
    (lambda m: pod(m)['containers'][0].update(command='python'), 'python'),
    (lambda m: job(m)['podFailurePolicy']['rules'][0]['onExitCodes'].pop('operator'), 'operator')])
def test_the_schemas_notice_mistakes(spoil, message):
  spoilt = copy.deepcopy(manifest('tpu'))
  spoil(spoilt)
  with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError), match=message):
    check(spoilt)


@pytest.mark.parametrize('platform', ['tpu', 'gpu'])
def test_status_75_restarts_without_counting(platform):
  made = manifest(platform, '--restarts=7')
  policy = made['spec']['failurePolicy']
  assert policy['maxRestarts'] == 7  # Of other failures: what no rule names restarts and counts.
  assert [(rule['action'], rule['onJobFailureReasons']) for rule in policy['rules']] == [
      ('RestartJobSetAndIgnoreMaxRestarts', ['PodFailurePolicy'])]
  assert job(made)['backoffLimit'] == 0 and pod(made)['restartPolicy'] == 'Never'
  [saved, disrupted] = job(made)['podFailurePolicy']['rules']
  assert saved == {'action': 'FailJob', 'onExitCodes': {
      'containerName': pod(made)['containers'][0]['name'], 'operator': 'In', 'values': [75]}}
  assert disrupted['action'] == 'FailJob' and disrupted['onPodConditions'][0]['type'] == 'DisruptionTarget'


@pytest.mark.parametrize('platform', ['tpu', 'gpu'])
def test_the_command_is_process_1_of_its_container_and_has_time_to_save(platform):
  made = manifest(platform)
  container = pod(made)['containers'][0]
  # What Kubernetes makes of it: '$$' is a '$', so nothing of the user's is filled in.
  assert [word.replace('$$', '$') for word in container['command']] == TRAIN
  assert pod(made)['terminationGracePeriodSeconds'] == 120


def test_a_pod_for_every_host_of_the_slice():
  made = manifest('tpu', '--topology=2x2x4', '--accelerator=tpu-v5p-slice', '--spot')
  assert (job(made)['parallelism'], job(made)['completions'], job(made)['completionMode']) == (4, 4, 'Indexed')
  assert pod(made)['nodeSelector'] == {
      'cloud.google.com/gke-tpu-accelerator': 'tpu-v5p-slice', 'cloud.google.com/gke-tpu-topology': '2x2x4',
      'cloud.google.com/gke-spot': 'true'}
  assert pod(made)['containers'][0]['resources'] == {'limits': {'google.com/tpu': 4}}
  one = manifest('tpu', '--topology=2x4', '--chips=8')
  assert job(one)['parallelism'] == 1 and pod(one)['containers'][0]['resources']['limits'] == {'google.com/tpu': 8}
  assert 'cloud.google.com/gke-spot' not in pod(one)['nodeSelector']


def test_gpu_pods_find_the_first_of_them():
  made = manifest('gpu', '--nodes=3', '--gpus=4')
  container = pod(made)['containers'][0]
  assert job(made)['completions'] == job(made)['parallelism'] == 3
  assert container['resources'] == {'limits': {'nvidia.com/gpu': 4}}
  assert container['args'] == ['--coordinator_address=pal-train-0-0.pal:8476', '--num_processes=3',
                               '--process_id=$(PROCESS_ID)']
  assert made['metadata']['name'] == 'pal' and made['spec']['replicatedJobs'][0]['name'] == 'train'
  [number] = [entry for entry in container['env'] if entry['name'] == 'PROCESS_ID']
  assert 'batch.kubernetes.io/job-completion-index' in number['valueFrom']['fieldRef']['fieldPath']


def test_data_are_mounted_where_training_looks():
  made = manifest('gpu')
  [volume] = [volume for volume in pod(made)['volumes'] if volume['name'] == 'data']
  assert volume['csi']['volumeAttributes']['bucketName'] == 'faces'
  [mount] = [mount for mount in pod(made)['containers'][0]['volumeMounts'] if mount['name'] == 'data']
  assert {'name': 'TFDS_DATA_DIR', 'value': mount['mountPath']} in pod(made)['containers'][0]['env']


def test_the_manifest_goes_to_kubectl(tmp_path):
  programs = program(tmp_path / 'bin', 'kubectl', f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\ncat > {tmp_path}/in\n')
  status, _, err = call('gke/run.sh', 'tpu', *COMMON, '--', *TRAIN, programs=programs)
  assert status == 0, err
  assert (tmp_path / 'arguments').read_text() == 'create --filename=-\n'
  assert yaml.safe_load((tmp_path / 'in').read_text()) == manifest('tpu')


@pytest.mark.skipif(not shutil.which('git'), reason='git is not installed')
def test_the_image_is_built_from_files_that_exist():
  lines = (ROOT / 'launch' / 'gke' / 'Dockerfile').read_text().splitlines()
  assert json.dumps('jax[${JAX}]') in lines[-1] and 'COPY . .' in lines
  assert lines[-1].endswith(' ".[gcs]"') and (ROOT / 'pyproject.toml').exists()
  # A shell as process 1 would swallow SIGTERM; the manifests' 'command' stands in its place.
  assert not any(line.startswith(('ENTRYPOINT', 'CMD')) for line in lines)
