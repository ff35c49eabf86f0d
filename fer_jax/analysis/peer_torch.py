"""Training steps of three systems as one writes them in PyTorch: what ``analysis/peer.py`` measures ours beside.

The only file that imports PyTorch. The network is a torchvision-like ResNet of basic blocks; PAL and RAN are written as
their papers' users do: PAL with ``autograd.grad(..., create_graph=True)``, RAN one region after the other.
"""

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

VERSION = torch.__version__.partition('+')[0]


class BasicBlock(nn.Module):
  """Two 3 x 3 convolutions and a shortcut: (B, before, H, W) -> (B, width, H / stride, W / stride)."""

  def __init__(self, before: int, width: int, stride: int):
    super().__init__()
    self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
    self.bn2 = nn.BatchNorm2d(width)
    self.relu = nn.ReLU(inplace=True)
    self.downsample = None
    if stride > 1 or before != width:
      self.downsample = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

  def forward(self, x: Tensor) -> Tensor:
    y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
    return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
  """Images (B, 3, H, W) -> features (B, 8 width, h, w), with ``stem`` as ``models/backbones/resnet.py`` has it."""

  def __init__(self, blocks: tuple[int, ...], width: int, stem: str):
    super().__init__()
    kernel, stride = (7, 2) if stem == 'standard' else (3, 1)
    self.conv1 = nn.Conv2d(3, width, kernel, stride, padding=kernel // 2, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.relu = nn.ReLU(inplace=True)
    self.pool = nn.MaxPool2d(3, 2, padding=1) if stem == 'standard' else nn.Identity()
    before = width
    for i, count in enumerate(blocks):
      stage = []
      for j in range(count):
        stage.append(BasicBlock(before, width * 2**i, 2 if i and not j else 1))
        before = width * 2**i
      setattr(self, f'layer{i + 1}', nn.Sequential(*stage))

  def forward(self, images: Tensor) -> Tensor:
    x = self.pool(self.relu(self.bn1(self.conv1(images))))
    return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class Net(nn.Module):
  """A trunk and the layers of a head; the losses below say how they go together."""

  def __init__(self, trunk: nn.Module, features: int, classes: int, regions: bool):
    super().__init__()
    self.backbone = trunk
    self.head = nn.ModuleDict({'fc': nn.Linear(2 * features if regions else features, classes)})
    if regions:
      self.head.update({'alpha': nn.Linear(features, 1), 'beta': nn.Linear(2 * features, 1)})


class Peer:
  """A training step, to be taken with ``take(steps)``.

  Args:
    system: a name in ``LOSSES``.
    blocks, width, stem: see ``ResNet``.
    params: {path: array} of our network, 'backbone/layer1_0/conv1/kernel' for instance, which the net starts from.
    batch: 'image' (B, H, H, 3) uint8, 'label' (B,), 'landmark_heatmap' (B, h, h) uint8.
    boxes: (R, 4) left, top, right, bottom of the regions of a face in fractions of its side, the face itself first.
    mean, std: of pixel values in [0, 1].
    margin: of RAN's rank loss.
    optimizer: of SGD: 'learning_rate', 'momentum', 'nesterov', 'weight_decay'; kernels decay.
    device: 'cpu' or 'cuda'.
    channels_last: how images lie in memory.
    fast: compile the trunk and compute it in bfloat16, by the fastest convolutions that cuDNN finds.
  """

  def __init__(self, system: str, blocks: tuple[int, ...], width: int, stem: str, params: Mapping[str, np.ndarray],
               batch: Mapping[str, np.ndarray], boxes: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...],
               margin: float, optimizer: Mapping[str, Any], device: str, channels_last: bool = False,
               fast: bool = False):
    form = torch.channels_last if channels_last else torch.contiguous_format
    classes = len(params['head/fc/bias'])
    self.net = Net(ResNet(blocks, width, stem), 8 * width, classes, len(boxes) > 1)
    self.net.load_state_dict(state_dict(params), strict=False)  # Running statistics are new in both.
    self.net.to(device, memory_format=form).train()
    torch.backends.cudnn.benchmark = fast
    self.trunk = torch.compile(self.net.backbone) if fast else self.net.backbone
    self.cast = torch.autocast(device, torch.bfloat16) if fast else contextlib.nullcontext()
    on_device = lambda array, **how: torch.tensor(array).to(device, **how)
    self.images = on_device(batch['image'].transpose(0, 3, 1, 2), memory_format=form)
    self.mean, self.std = (on_device(np.float32(values)[:, None, None]) for values in (mean, std))
    self.labels = on_device(batch['label'].astype(np.int64))
    self.heatmaps = on_device(batch['landmark_heatmap'].astype(np.float32) / 255)
    self.margin = margin
    low, high = torch.tensor(boxes)[:, :2], torch.tensor(boxes)[:, 2:]
    affine = torch.cat([torch.diag_embed(high - low), (low + high - 1)[:, :, None]], dim=2)
    self.grids = F.affine_grid(affine, [len(boxes), 3, *self.images.shape[2:]], align_corners=False).to(device)
    kernels = [value for value in self.net.parameters() if value.ndim > 1]
    others = [value for value in self.net.parameters() if value.ndim == 1]
    self.optimizer = torch.optim.SGD(
        [{'params': kernels, 'weight_decay': optimizer['weight_decay']}, {'params': others}],
        optimizer['learning_rate'], optimizer['momentum'], nesterov=optimizer['nesterov'], fused=True)
    self.loss = LOSSES[system]

  def features(self, images: Tensor) -> Tensor:
    """The trunk's float32 features of images."""
    with self.cast:
      return self.trunk(images).float()

  def step(self) -> Tensor:
    """One training step on the batch."""
    images = (self.images.float() / 255 - self.mean) / self.std
    loss = self.loss(self, images)
    self.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    self.optimizer.step()
    return loss.detach()

  def take(self, steps: int) -> dict[str, float]:
    """Takes steps, waits for them and returns the loss of the last one and the norm of its gradient."""
    for _ in range(steps):
      loss = self.step()
    norm = torch.stack([value.grad.norm() for value in self.net.parameters()]).norm()
    return {'loss': loss.item(), 'gradient_norm': norm.item()}


def plain(peer: Peer, images: Tensor) -> Tensor:
  """Cross-entropy."""
  return F.cross_entropy(peer.net.head['fc'](peer.features(images).mean((2, 3))), peer.labels)


def pal(peer: Peer, images: Tensor) -> Tensor:
  """Cross-entropy and, less its sign, the correlation of gradient times features with the landmarks' heatmap."""
  features = peer.features(images)
  logits = peer.net.head['fc'](features.mean((2, 3)))
  gradient, = torch.autograd.grad(logits.sum(), features, create_graph=True)
  maps = (features * gradient).mean(1).flatten(1)
  priors = F.interpolate(peer.heatmaps[:, None], features.shape[2:], mode='bilinear', antialias=True).flatten(1)
  alike = F.cosine_similarity(maps - maps.mean(1, keepdim=True), priors - priors.mean(1, keepdim=True))
  return F.cross_entropy(logits, peer.labels) - alike.mean()


def ran(peer: Peer, images: Tensor) -> Tensor:
  """Cross-entropy of the two attentions over regions (the code's form), and the rank loss of the first."""
  crops = [images] + [F.grid_sample(images, grid.expand(len(images), -1, -1, -1), padding_mode='border',
                                    align_corners=False) for grid in peer.grids[1:]]
  regions = torch.stack([peer.features(crop).mean((2, 3)) for crop in crops], dim=1)
  head = peer.net.head
  alpha = torch.softmax(torch.sigmoid(head['alpha'](regions)), dim=1)
  whole = (alpha * regions).sum(1, keepdim=True) / alpha.sum(1, keepdim=True)
  related = torch.cat([regions, whole.expand_as(regions)], dim=2)
  weights = alpha * torch.softmax(torch.sigmoid(head['beta'](related)), dim=1)
  logits = head['fc']((weights * related).sum(1) / weights.sum(1))
  rank = F.relu(peer.margin - (alpha[:, 1:, 0].amax(1) - alpha[:, 0, 0]))
  return F.cross_entropy(logits, peer.labels) + rank.mean()


LOSSES: dict[str, Callable[[Peer, Tensor], Tensor]] = {'baseline': plain, 'pal': pal, 'ran': ran}


def state_dict(params: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
  """Our parameters {path: array} under PyTorch's names and in its layouts."""
  out = {}
  for path, value in params.items():
    *modules, kind = path.split('/')
    name = '.'.join(re.sub(r'_(\d+)$', r'.\1', module) for module in modules)
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim, (0,))
    out[f'{name}.{"bias" if kind == "bias" else "weight"}'] = torch.tensor(np.transpose(value, axes).copy())
  return out


def prepare(threads: int) -> None:
  """Gives PyTorch so many threads for an operation, and one operation at a time."""
  torch.set_num_threads(threads)
  with contextlib.suppress(RuntimeError):  # It was set, or work was done before: it stays as it is.
    torch.set_num_interop_threads(1)


def has_gpu() -> bool:
  """Whether this PyTorch can use a GPU."""
  return torch.cuda.is_available()
