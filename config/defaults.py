"""Every setting with its default, unit and comment.

``get_defaults()`` returns a fresh tree; a train setting changes a handful of fields, the command
line overrides any of them with ``--set KEY VALUE``.
"""

from __future__ import annotations

from config.settings import Settings, open_node


def get_defaults() -> Settings:
    """The settings tree with all defaults, sealed against unknown keys."""
    s = Settings()
    s.description = ""  # one line on what this variant is
    s.module_name = ""  # family of the train setting ("spot"); set by the command line
    s.variant = ""  # name of the train setting ("spot_transt_003"); set by the command line
    s.magic_number = ""  # names the sampler state of a run; empty: the variant's name
    s.device = "auto"  # auto, cpu, cuda or cuda:N
    s.seed = 0  # all randomness comes from (seed, epoch, index)
    s.threads = 0  # CPU threads of the main process for torch; 0: torch's own choice

    s.paths = Settings()
    s.paths.var = "var"  # all that changes: checkpoints, records, results; relative to the project folder
    s.paths.pretrain = "ltr/pretrain"  # local files with backbone weights
    s.paths.sampling_results = "sampling/sampling_results"  # which frames carry a label
    s.paths.seq_files = ""  # folder of pysot-style {dataset}.json files; empty: beside each benchmark
    s.paths.train = open_node()  # dataset name -> folder; from config/local.py
    s.paths.test = open_node()  # benchmark name -> folder; from config/local.py

    s.network = Settings()
    s.network.name = ""  # a registered network ("transt")
    s.network.args = open_node()  # arguments of its constructor, where they differ from its defaults
    s.network.pretrained = True  # start the backbone from ImageNet weights
    s.network.pretrained_file = ""  # in paths.pretrain, or a path; empty: the backbone's own, torchvision's
    s.network.allow_random = False  # without the weights: train from random weights instead of stopping

    s.data = Settings()
    s.data.datasets = []  # "NAME:SPLIT" each, drawn with equal weight
    s.data.search_size = 256  # side of search, unlabeled and aug crops, px
    s.data.template_size = 128  # side of template, key and relay crops, px
    s.data.search_factor = 4.0  # search crop side over target size
    s.data.template_factor = 2.0
    s.data.center_jitter_search = 3.0  # also for the aug crop; see ltr.data.crop.jitter
    s.data.scale_jitter_search = 0.25
    s.data.workers = 4  # loader processes; 0: load in the main process
    s.data.prefetch = 2  # batches a worker prepares ahead
    s.data.max_bad_samples = 100  # unreadable samples replaced per epoch before the run stops

    s.augment = Settings()  # all on the device, drawn per sample
    s.augment.brightness = 0.2  # factor uniform in [1 - b, 1 + b]; never for the teacher
    s.augment.gray = 0.05  # probability, the same draw for both images of a pair; student only
    s.augment.mirror = 0.35  # left-right, aug crop only
    s.augment.upside_down = 0.10  # rotation by 180 degrees, aug crop only
    s.augment.max_angle = 10  # degrees, integer uniform in [-a, a], aug crop only

    s.sampling = Settings()
    s.sampling.num = 3  # labelled frames per video
    s.sampling.require_files = False  # stop, instead of sampling, when a key-frame file is missing
    s.sampling.use_all_anno = False  # TrackingNet: also take interpolated boxes as labels
    s.sampling.seed = 0

    s.sequences = Settings()  # samples of several frames: the DiMP family. Crops are data.search_size px
    s.sequences.weights = []  # how often each of data.datasets is drawn, in proportion; empty: equally
    s.sequences.train_frames = 3  # a filter is learned from them
    s.sequences.test_frames = 3  # and judged by these
    s.sequences.max_gap = 30  # frames between the first train frame and any other at most
    s.sequences.mode = "causal"  # test frames after train frames; or interval: around the first one
    s.sequences.crop = "replicate"  # or centred, inside, inside_major; see ltr.data.adaptive_crop
    s.sequences.max_scale_change = 0.0  # of a crop that is shrunk into its image; 0: any
    s.sequences.center_jitter_train = 3.0  # of train frames; test frames: data.center_jitter_search
    s.sequences.scale_jitter_train = 0.25
    s.sequences.mirror = 0.0  # probability, left-right, per frame
    s.sequences.label_sigma = 0.25  # of the labels' bump, over the target's size
    s.sequences.proposals = open_node()  # arguments of what makes the proposals; see ltr.data.proposals

    s.validation = Settings()  # a look at other videos, without learning from them
    s.validation.datasets = []  # "NAME:SPLIT" each; empty: no validation
    s.validation.interval = 5  # epochs from one to the next
    s.validation.iterations = 100  # batches of each, the same ones every time

    s.train = Settings()
    s.train.epochs = 400
    s.train.burn_in_epochs = 50  # labelled pairs only; the sparse stage follows
    s.train.iterations = 1000  # steps per epoch
    s.train.batch_size_sup = 8  # labelled pairs per step, all processes together
    s.train.batch_size_unsup = 24  # unsupervised instances per step (burn-in: more labelled pairs)
    s.train.save_interval = 25  # epochs between checkpoints that are kept
    s.train.resume_interval = 5  # epochs between checkpoints of which only the newest is kept
    s.train.precision = "float32"  # or bfloat16: autocast
    s.train.compile = False  # torch.compile the student
    s.train.max_nonfinite = 20  # steps in a row with a non-finite gradient before the run stops
    s.train.image_interval = 1  # epochs between pictures of student inputs; 0: none
    s.train.tensorboard = True

    s.optim = Settings()
    s.optim.name = "adamw"  # or adam, sgd
    s.optim.lr = 1e-4
    s.optim.backbone_lr = 1e-5
    # part of the network -> its rate, in place of those two; what is in no part does not train
    s.optim.rates = open_node()
    s.optim.momentum = 0.9  # sgd only
    s.optim.weight_decay = 1e-4
    s.optim.clip_norm = 0.0  # 0: no clipping
    # step: x gamma after drop_epoch; stepevery: x gamma after every drop_epoch epochs;
    # onecycle: linear warm-up, cosine decay, per step;
    # warmuplog: 50 rates over all epochs, the first five up, then logarithmically down to lr / 500
    s.optim.schedule = "step"
    s.optim.drop_epoch = 300
    s.optim.gamma = 0.1
    s.optim.warmup = 0.1  # share of all steps, onecycle only
    s.optim.unfreeze_epoch = 0  # the backbone is frozen before this epoch; 0: it is not
    s.optim.unfreeze_stages = []  # of the backbone, trained from then on ("layer3")

    s.sparse = Settings()
    s.sparse.confidence_threshold = 0.85  # confidence (predicted IoU) from which a box becomes a pseudo label
    s.sparse.window_penalty = 0.40  # weight of the Hann window in the teacher's score map
    s.sparse.propagating_step = 1  # frames beyond the explored ones that may be tried
    s.sparse.interpolation_limit = 4  # frames between which a coarse box is interpolated
    s.sparse.keep_rate = 0.998  # of the teacher in each moving-average update
    s.sparse.update_frequency = 5  # steps between updates of the teacher

    s.objective = open_node()  # loss weights; see the objective of the family

    s.testing = Settings()
    s.testing.batch = 1  # sequences that advance together on a device

    s.tracker = open_node()  # arguments of the tracker, where they differ from its defaults

    s.seal()
    return s
