"""What a file is that holds no weights that are read here, by how it begins."""

import re

_KNOWN = "files of torch.save, safetensors, pickles and .npz files of arrays, dlib's face network, TensorFlow.js models"

_BEGINNINGS = (
    (rb'$', 'is empty. Obtain it anew.'),
    (rb'version https://git-lfs', 'is a pointer of Git LFS, not the file itself: fetch that with git lfs pull.'),
    (rb'\s*<', 'is a web page, as a failed download leaves it. Obtain the file anew.'),
    (rb'\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!|.{257}ustar', 'is compressed or an archive: unpack '
     'it, and give the file of weights itself.'),
    (rb'\xff\xd8\xff|\x89PNG|GIF8|BM.{4}\0{4}|RIFF.{4}WEBP', 'is an image, not a file of weights.'),
    (rb'\x93NUMPY', 'is one array without a name; save a dictionary of them: numpy.savez(PATH, **arrays).'),
    (rb'\x89HDF', 'is HDF5, as of Keras, which is not read here; save its arrays: numpy.savez(PATH, **arrays).'),
    (rb'.{4}TFL3', 'is a model of TensorFlow Lite, which is not read here.'),
    (rb'GGUF', 'is a GGUF file, which is not read here.'),
    (rb'\x01\x01\x01.loss_mmod_', 'is a detector of dlib, not its face network.'),
    (rb'\x01\x01\x01.loss_', 'is a network of dlib, but not its face network.'),
    (rb'\x01\x01\x81', 'is a predictor of landmarks of dlib, not its face network.'),
)


def what(content: bytes) -> str:
  """The rest of a sentence that begins with the file's path."""
  for pattern, text in _BEGINNINGS:
    if re.match(pattern, content[:512], re.DOTALL):
      return text
  return f'is of no format that is read here ({_KNOWN}), or is damaged at its beginning.'
