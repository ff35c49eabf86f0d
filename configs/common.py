"""Every key of a config, one comment each. A system's config starts from here and states what differs.

    config = common.get_config('ferplus')

The config is locked: a key that is not here is an error. Options of a component (backbone, head, loss, attribution) are
the keyword arguments of its function; they are checked when a run starts.
"""

from ml_collections import ConfigDict

from fer_jax.errors import UserError, nearest

# What a data set decides: its splits, the side its images are stored and fed at, and the backbone that fits that side.
DATASETS = {
    'synthetic_faces': {'variant': 'default', 'train': 'train', 'holdout': 'valid', 'test': 'test', 'size': 64},
    # RAN's protocol: the published validation images are trained on, so nothing is left to select on.
    'ferplus': {'variant': 'majority', 'train': 'train+valid', 'holdout': '', 'test': 'test', 'size': 48},
    'fer2013': {'variant': 'default', 'train': 'train', 'holdout': 'valid', 'test': 'test', 'size': 48},
    # These have no validation split of their own, and papers select on the split they report. To select honestly, hold
    # out a part of the training split: --config.data.train='train[:90%]' --config.data.holdout='train[90%:]'.
    'rafdb': {'variant': 'aligned', 'train': 'train', 'holdout': '', 'test': 'test', 'size': 112},
    'affectnet': {'variant': 'csv8', 'train': 'train', 'holdout': '', 'test': 'valid', 'size': 112},
    'sfew': {'variant': 'aligned', 'train': 'train', 'holdout': '', 'test': 'valid', 'size': 112},
    'faces_folder': {'variant': 'default', 'train': 'train', 'holdout': '', 'test': 'test', 'size': 112},
}


def parse(argument: str) -> tuple[str, bool]:
  """Splits a config's argument, 'DATASET', 'DATASET:accelerator' or 'DATASET:paper', into what is shared and the rest.

  Returns:
    'DATASET' or 'DATASET:accelerator', the recipe that all systems share, and whether the paper's is meant.

  Raises:
    UserError: something else stands behind the data set.
  """
  dataset, _, recipe = argument.partition(':')
  if recipe not in ('', 'accelerator', 'paper'):
    raise UserError(f"unknown recipe '{recipe}'{nearest(recipe, ('accelerator', 'paper'))} Write DATASET for the small "
                    'recipe that all systems share, DATASET:accelerator for its large form, or DATASET:paper for the '
                    'published one.')
  return (dataset, True) if recipe == 'paper' else (argument, False)


def get_config(dataset: str) -> ConfigDict:
  """The plain classifier on ``dataset``, with every key there is."""
  if dataset not in DATASETS:
    raise UserError(f"unknown data set '{dataset}'{nearest(dataset, DATASETS)} "
                    'Name it behind a colon: --config=configs/pal.py:ferplus')
  sets = DATASETS[dataset]
  config = ConfigDict()
  config.name = 'baseline'  # Names the run in reports and tables.
  # Decides initial parameters, dropout and drawn targets, and unless data.seed does, order and augmentation.
  config.seed = 0

  config.data = ConfigDict()
  config.data.dataset = dataset  # A folder of fer_jax/data/builders.
  config.data.variant = sets['variant']  # The builder's own configuration (a label rule, a size).
  config.data.dir = ''  # Where prepared data sets lie; '' is TFDS's default (TFDS_DATA_DIR or ~/tensorflow_datasets).
  config.data.train = sets['train']  # TFDS split(s) to train on, joined by '+'.
  config.data.holdout = sets['holdout']  # Split evaluated during training and selected on; '' for none.
  config.data.test = sets['test']  # Split evaluated once, at the end.
  config.data.classes = ()  # Train and test on the faces of these classes only; () for all.
  config.data.parts = 1  # Faces of data.train in each group of rows of a batch, beside the parts of config.sources.
  config.data.size = sets['size']  # Side in pixels at which images are sent to the device.
  config.data.channels = 0  # 1 or 3, of every image sent to the device; 0: 3 if the training split has one in colour.
  # 'label' (one-hot), 'target' (the builder's distribution), 'drawn' (one class from it at each use), or 'votes'.
  config.data.target = 'label'
  # Decode the faces once, into arrays on disk that all processes of a machine share; False: at every use.
  config.data.table = True
  # Keep them on the devices as well: 'True', a copy on each; 'split', a share on each; 'False'; or 'auto', a copy where
  # it takes no more than a quarter of a device's memory, and none on CPU.
  config.data.resident = 'auto'
  config.data.resident_steps = 0  # Steps in one dispatch of resident faces; 0: 32, and 1 on CPU.
  # Training order: 'shuffle' (every face once an epoch), 'balanced' (the classes take turns) or 'oversample' (drawn
  # with replacement, rare classes more often).
  config.data.order = 'shuffle'
  # Decides order and augmentation alone; -1: config.seed does. From 0 on, runs of several seeds see the same rows.
  config.data.seed = -1
  # How maps are drawn: options of fer_jax.landmarks; other than these, the stored maps are drawn again.
  config.data.maps = ConfigDict()
  config.data.maps.landmark_heatmap = ConfigDict({'sigma': 3 / 224, 'points': 'no_jaw', 'combine': 'sum'})
  config.data.maps.action_unit_map = ConfigDict({
      'geometry': 'code', 'disgust': '', 'au20_right': '', 'au10': '', 'au6': '',  # '': as the geometry says.
      'radii': 'scaled'})
  config.data.maps.action_unit_generic_map = False  # Also give the map of all action units, whatever the expression.
  config.data.maps.action_unit_random_map = False  # Also give that of an expression drawn for the face, a control.
  # Files that list faces of the test split to be scored apart, see fer_jax/data/reading/subsets.py.
  config.data.subsets = ()
  config.data.duplicates = False  # Also score test splits without the images that data.train has too.
  config.data.threads = 4  # Threads that read and decode.

  # Further sources in every batch, by name: split, parts, supervision and more, see fer_jax/training/data.py.
  config.sources = ConfigDict()
  # Triplets that the embedding is scored on with the test split, by name: split, truth and more.
  config.comparisons = ConfigDict()
  config.teacher = ConfigDict()
  config.teacher.workdir = ''  # A trained run whose answers the loss 'distillation' looks at.
  config.teacher.view = 'clean'  # What it sees: 'clean' faces, or the 'student' augmentation of them.
  # Where the backbone starts: '' (random parameters), 'dlib', a file of pretrained weights (models/weights; FAMILY:FILE
  # where its names do not tell the family), or a trained run.
  config.init_from = ''
  # What such weights decide of the config, unless the command line does.
  config.init_decides = ('backbone', 'normalise', 'image_size')
  config.finetune = ConfigDict()  # Keyword arguments of fer_jax.training.finetune.finetuning_rules.
  config.finetune.factor = 1.0  # Of the learning rate, from each stage of the backbone to the one below it.
  config.finetune.head_alone = 0.0  # Share of training at whose start the head alone learns.
  config.finetune.frozen = ''  # The tap up to which the backbone stays as it is, such as 'stage1'; '' for none.

  config.batch_size = 128  # Examples per step over all devices.
  # Examples per evaluation step over all devices, and their order: 'stored', 'shuffled' or 'sorted' by class. Neither
  # changes any number, unless the head looks at the whole batch (ARM with global_mean='batch').
  config.eval_batch_size = 256
  config.eval_order = 'stored'
  # Length of training: so many times as many rows as the training split has faces. With config.sources not all of the
  # rows are its faces.
  config.epochs = 20.0
  config.length = ''  # In place of epochs: '5000 steps', '2e6 faces', '30 epochs' or '45 minutes' of steps.
  config.image_size = sets['size']  # Side in pixels of what the backbone sees.

  config.regions = ConfigDict()  # Keyword arguments of fer_jax.landmarks.regions.region_boxes.
  config.regions.scheme = 'none'  # 'none' (the face is one image), 'fixed5', 'affectnet7', 'random' or 'landmark'.
  config.regions.count = 5  # Number of random crops.
  config.regions.side = (0.7, 0.95)  # Range of their side, as a share of the image side.
  config.regions.landmark_side = 0.5  # Side of the squares at five landmarks, likewise.

  config.augment = ConfigDict()  # Keyword arguments of fer_jax.data.augment.augment.
  config.augment.flip = 0.5  # Probability of a mirror image.
  config.augment.rotation = 10.0  # Degrees, uniform in both directions.
  config.augment.scale = (0.85, 1.05)  # Side of the random crop as a share of the image side.
  config.augment.brightness = 0.2  # Factor on the pixel values, uniform in 1 +- this.
  config.augment.contrast = 0.2  # The same for the distance from the mean value.
  config.augment.erasing = 0.0  # Probability that a random rectangle is filled.
  config.augment.erasing_area = (0.02, 0.1)  # Its area as a share of the image.
  config.augment.noise = 0.0  # Standard deviation of Gaussian noise on pixel values in [0, 1].

  config.normalise = ConfigDict()  # Mean and standard deviation of pixel values in [0, 1], per channel.
  config.normalise.mean = (0.5, 0.5, 0.5)
  config.normalise.std = (0.25, 0.25, 0.25)

  config.model = ConfigDict()
  # Of the computation: 'float32', 'bfloat16' or 'auto', that is bfloat16 on TPU and GPU and float32 on CPU; parameters
  # are float32 always.
  config.model.dtype = 'auto'
  config.model.region_norm = 'separate'  # BatchNorm in training: each region by its own statistics, or all 'folded'.
  # BatchNorm in training: by statistics of all rows, 'global', or of each device's own, 'device', which waits for no
  # other. With 'device' the network, and every number, changes with the number of devices.
  config.model.norm_scope = 'global'
  # A file of fer_jax/models/backbones and its options.
  config.model.backbone = ConfigDict({
      'name': 'resnet', 'depth': 18, 'width': 64, 'stem': 'small', 'large_maps': False})
  # A file of fer_jax/models/heads and its options.
  config.model.head = ConfigDict({'name': 'linear', 'dropout': 0.0})

  # Loss terms by name: a file of fer_jax/losses, a weight (a number, or pairs (share of training, weight)), the
  # examples it speaks of (training.step.MASKS), and its options.
  config.losses = ConfigDict()
  config.losses.cross_entropy = ConfigDict({
      'loss': 'cross_entropy', 'weight': 1.0, 'mask': 'labelled', 'smoothing': 0.0, 'class_weights': ()})

  config.optimizer = ConfigDict()  # Keyword arguments of fer_jax.training.optim.make_optimizer.
  config.optimizer.name = 'sgd'  # 'sgd', 'adam' (coupled L2) or 'adamw'.
  config.optimizer.learning_rate = 0.1  # Peak.
  config.optimizer.schedule = 'cosine'  # 'constant', 'cosine', 'step', 'exponential' or 'polynomial'.
  config.optimizer.warmup = 0.05  # Linear rise at the start, as a share of training.
  config.optimizer.momentum = 0.9
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 5e-4
  config.optimizer.decay = 'weights'  # What decays: 'weights' (kernels alone), or 'all' parameters as in PyTorch.
  config.optimizer.clip_norm = 0.0  # Largest gradient norm; 0 for no clipping.
  config.optimizer.accumulate = 1  # Steps whose gradients are averaged into one update.
  config.optimizer.rules = ()  # Pairs (regex on parameter paths, options), see make_optimizer; first match wins.

  config.ema = 0.0  # Decay of a moving average of the variables; 0 keeps none.
  # Which step is tested: the 'last'; the best on data.holdout, 'holdout'; 'best_on_test' (leaky: only to replicate
  # papers that did so, and marked wherever its number is shown). Of its variables, the 'trained' or the average, 'ema'.
  config.select = 'last'
  config.variables = 'trained'
  config.remat = False  # Recompute the inside of the backbone's blocks in the backward pass: less memory, more work.
  config.parallel = 'jit'  # 'jit' (one global program, split by the compiler) or 'pmap' (one program per device).
  config.log_every = 50  # Steps between lines of metrics.jsonl.
  config.evaluate_every = 1.0  # Epochs between evaluations of data.holdout.
  config.checkpoint_every = 1.0  # Epochs between checkpoints.
  config.checkpoint_minutes = 10.0  # And minutes, looked at where a line is logged; 0 for epochs alone.

  config.report = ConfigDict()
  # Show faces whose terms forbid passing them on (RAF-DB, AffectNet, SFEW, FEC, FER2013, FERPlus): a page for yourself.
  config.report.faces = False

  # Attribution maps measured and drawn in evaluations: keyword arguments of attribution.maps.tap_map.
  config.explain = ConfigDict()
  config.explain.logit_sum = ConfigDict({
      'attribution': 'grad_input', 'target': 'logit_sum', 'tap': 'stage4', 'channels': 'mean'})
  config.explain.predicted = ConfigDict({
      'attribution': 'grad_input', 'target': 'predicted', 'tap': 'stage4', 'channels': 'mean'})
  # The maps of AU cues' CAM-COS and ATT-COS. Gradient times activation of the true class is CAM, up to its scale, where
  # the head is pooling and one linear layer, and goes with every other head too.
  config.explain.cam = ConfigDict({
      'attribution': 'grad_input', 'target': 'true_class', 'tap': 'stage4', 'channels': 'mean'})
  config.explain.attention = ConfigDict({
      'attribution': 'activation', 'target': 'logit_sum', 'tap': 'stage4', 'channels': 'mean'})
  return config.lock()
