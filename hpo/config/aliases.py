"""Names that other tools use for our parameters, their values, metrics and data sets.

A name stands here only if it means the same thing in the same unit wherever people use it for a network that is
trained on a data set. What a word can also mean, and when it means ours, is said beside it. Words that look like ours
and are not, or that have two meanings, are in `NEAR_MISSES`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

__all__ = [
    "DATASET_ALIASES",
    "METRIC_ALIASES",
    "NEAR_MISSES",
    "OTHER_LEARNING",
    "OTHER_UNITS",
    "PARAMETER_ALIASES",
    "SYNONYM_BOUNDS",
    "VALUE_ALIASES",
    "canonical",
    "find_aliases",
    "find_value_alias",
    "is_context",
]


def canonical(name: str) -> str:
    """Return a name without what spellings differ in: `batch-size`, `batchSize` and `Batch Size` are `batchsize`."""
    letters = "".join(character for character in name.lower() if character.isalnum())
    return letters.replace("optimis", "optimiz").replace("initialis", "initializ").replace("normalis", "normaliz")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _spell(names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return, by canonical name, the parameters that it can mean, in the order of the table."""
    table: dict[str, tuple[str, ...]] = {}
    for ours, theirs in names.items():
        for name in theirs.split():
            table[name] = (*table.get(name, ()), ours)
    return table


# By our parameter, in canonical form, the names that others have for it, also after that of the table that they are in:
# `schedulerpatience` is `scheduler.patience` too. A name in several rows is the first of them
# whose type the values have, and which the model uses: `hidden_layers` of whole numbers is a depth, of lists widths.
PARAMETER_ALIASES: Mapping[str, tuple[str, ...]] = _spell(
    {
        "learning_rate": "lr initlr initiallr baselr initlearningrate initiallearningrate baselearningrate learnrate"
        " lrate lrinit learningrateinit",
        "final_learning_rate": "finallr lrend endlr endlearningrate",
        "depth": "hiddenlayers nlayers numlayers numhiddenlayers numberhiddenlayers nhiddenlayers nohiddenlayers"
        " noofhiddenlayers numberoflayers numberofhiddenlayers nolayers layers numfclayers ndense",
        "width": "hiddensize hiddenunits units neurons nunits numunits nneurons numneurons numhidden nhidden"
        " numhiddenunits hiddenfeatures hiddenlayersize hiddenlayerssize sizeofhiddenlayer sizehiddenlayer hiddendim"
        " hiddenwidth layersize fclayersize fcsize fcunits denseunits denselayersize hidden hiddenchannels",
        "widths": "hiddensizes hiddendims hiddenlayers hiddenlayersizes layersizes layers layerdims"
        " hiddensize hiddenunits units hiddendim hidden architecture layerwidths",
        "dense_width": "fcsize fcunits fclayersize denseunits denselayersize linearunits hiddensize hiddenunits",
        "channels": "filters numfilters nfilters basechannels basefilters initialfilters nofinitialfilters"
        " hiddenchannels",
        "block_channels": "filters numfilters nfilters channels hiddenchannels convchannels",
        "kernel_size": "kernel filtersize convkernelsize kernelsizes",
        "conv_layers": "nconvlayers numconvlayers convblocks numconvblocks nconv",
        "latent_size": "latentdim latentdims zdim bottleneck bottlenecksize bottleneckdim encodingdim",
        "schedule": "lrscheduler lrschedule scheduler lrpolicy learningrateschedule learningratescheduler schedulertype"
        " schedulername lrschedulertype lrdecaytype decay lrdecay",
        "warmup": "warmupratio warmupfraction warmupproportion",
        "warmup_steps": "nwarmupsteps numwarmupsteps lrwarmupsteps warmupiters",
        "warmup_epochs": "nwarmupepochs numwarmupepochs lrwarmupepochs",
        "step_epochs": "lrstepsize stepsize steplrstepsize schedulerstepsize lrschedulerstepsize",
        "gamma": "lrgamma schedulergamma lrschedulergamma steplrgamma lrdecayfactor lrdecayrate schedulerfactor"
        " lrschedulerfactor lrfactor",
        "plateau_patience": "lrpatience schedulerpatience lrschedulerpatience",
        "polynomial_power": "schedulerpower lrschedulerpower lrpower polypower",
        "restart_epochs": "schedulert0 lrschedulert0 t0",
        "restart_factor": "schedulertmult lrschedulertmult tmult",
        "batch_size": "bs batch trainbatchsize trainingbatchsize minibatchsize minibatch batchsizetrain batchsz",
        "gradient_accumulation": "accumulategradbatches gradientaccumulationsteps accumulationsteps gradaccum"
        " gradaccumsteps accumsteps",
        "epochs": "nepochs numepochs maxepochs epoch nbepochs numtrainepochs trainingepochs trainepochs totalepochs"
        " numberofepochs noepochs epochsnum",
        "optimizer": "opt optim optimizername optimizertype optimtype optname learningalgorithm optimizationalgorithm",
        "activation": "nonlinearity activationfunction act activationfn actfn actfunc activationfunc hiddenactivation"
        " activations activationtype nonlin",
        "init": "initializer initialization weightinit weightinitialization"
        " weightsinit winit kernelinitializer initmethod weightinitializer",
        "dropout": "dropoutrate droprate dropoutprob dropoutp pdropout dropoutprobability dropoutratio drop dropprob",
        "batch_norm": "usebatchnorm usebn bn batchnormalization usebatchnormalization",
        "layer_norm": "uselayernorm useln layernormalization",
        "beta1": "adambeta1 b1",
        "beta2": "adambeta2 b2",
        "epsilon": "eps adamepsilon adameps",
        "weight_decay": "wd weightdec adamweightdecay",
        "gradient_clip": "maxgradnorm globalclipnorm gradnormclip gradclipnorm gradientclipnorm clipgradnorm"
        " gradientclipval gradientclippingmaxnorm gradnorm",
        "patience": "earlystoppingpatience earlystoppatience espatience earlystopping earlystop patienceepochs",
        "min_delta": "earlystoppingmindelta earlystoppingdelta esmindelta",
        "label_smoothing": "labelsmooth smoothing labelsmoothingfactor",
        "validation": "valsplit validationsplit validsplit valsize validationsize validsize valfraction valratio"
        " validationfraction",
        "model": "arch architecture modeltype modelname net network nettype networktype modelarch",
        "loss": "lossfunction lossfn criterion losstype lossfunc lossname",
        "seed": "randomstate randomseed rngseed seedvalue",
        "ema_decay": "emarate modelemadecay",
        "augment": "augmentation augmentations dataaugmentation",
        "input_scaling": "scaling normalization scaler",
    }
)

# Words that look like one of our parameters: which one, unless its unit is another in any case, and what they can mean.
NEAR_MISSES: Mapping[str, tuple[str | None, str]] = {
    "l2": ("weight_decay", "a penalty l2 * w**2 has twice the gradient of weight_decay"),
    "l2reg": ("weight_decay", "a penalty l2 * w**2 has twice the gradient of weight_decay"),
    "l2regularization": ("weight_decay", "a penalty l2 * w**2 has twice the gradient of weight_decay"),
    "regularization": ("weight_decay", "a penalty may have another factor than weight_decay"),
    "reg": ("weight_decay", "a penalty may have another factor than weight_decay"),
    "maxlr": ("learning_rate", "it is learning_rate only under the schedule one_cycle"),
    "minlr": ("final_learning_rate", "it is that only under a schedule that ends there"),
    "etamin": ("final_learning_rate", "it is that only under a schedule that ends there"),
    "eta": ("learning_rate", "it may be a rate, or boosting's"),
    "alpha": ("learning_rate", "it may be a rate, a penalty or a mixing weight"),
    "gradclip": ("gradient_clip", "ours limits the norm of the gradient, and not its values"),
    "gradientclipping": ("gradient_clip", "ours limits the norm of the gradient, and not its values"),
    "clip": ("gradient_clip", "ours limits the norm of the gradient, and not its values"),
    "clipvalue": ("gradient_clip", "ours limits the norm of the gradient, and not its values"),
    "clipnorm": ("gradient_clip", "in Keras it limits the gradient of each variable, and not of all together"),
    "maxnorm": ("gradient_clip", "it may be a bound of the weights"),
    "nesterov": (
        None,
        "it is an optimizer of its own here: --rename optimizer.sgd=nesterov where the file names sgd, else "
        "--set optimizer=nesterov",
    ),
    "betas": (None, "it is two parameters here: --set beta1=… --set beta2=…"),
    "adambetas": (None, "it is two parameters here: --set beta1=… --set beta2=…"),
    "keepprob": (None, "it is 1 - dropout"),
    "steps": (None, "it counts steps, or something else, and not passes over the data"),
    "iterations": (None, "it counts steps, or something else, and not passes over the data"),
    "maxsteps": (None, "it counts steps, or something else, and not passes over the data"),
    "swalr": (None, "weight_averaging = 'swa' has no rate of its own; the schedule gives that of all epochs"),
    "perdevicetrainbatchsize": ("batch_size", "it is of one device, before accumulation"),
}

# Of a parameter whose name says no unit, those in other ones.
OTHER_UNITS: Mapping[str, tuple[str, ...]] = {"warmup": ("warmup_epochs", "warmup_steps")}

# Bounds within which a word is ours, where it has other meanings outside them: Adam's epsilon is tiny, the epsilon
# of a greedy policy or of an adversarial attack is not.
SYNONYM_BOUNDS: Mapping[str, tuple[float, float]] = {"epsilon": (0.0, 0.01)}

# Words by which a search is of another kind of learning, where the same words mean other things: `epochs` of PPO are
# passes over a rollout, `gamma` is a discount, `batch_size` is drawn from a replay buffer.
OTHER_LEARNING: Mapping[str, frozenset[str]] = {
    "reinforcement learning": _words(
        "dqn ppo sac td3 ddpg a2c a3c trpo envid envname gymid totaltimesteps ntimesteps totalsteps entcoef entropycoef"
        " entropycoeff vfcoef gaelambda cliprange clipcoef targetupdate targetupdateinterval targetupdatefreq"
        " targetnetworkfrequency epsilondecay epsdecay epsstart epsend epsilonstart epsilonend explorationfraction"
        " explorationfinaleps discount discountfactor rolloutlength rollouts replaybuffersize replaysize replaybuffer"
        " replaymemory nepisodes numepisodes episodes maxepisodes numenvs nenvs polyak buffercapacity"
    ),
    "gradient boosting": _words(
        "nestimators numleaves colsamplebytree mindatainleaf minchildweight minchildsamples maxdepth subsample"
        " numboostround scaleposweight"
    ),
}

# Tables in which parameters of ours may stand, by the group that ours belong to; any other table is of something else.
ANYWHERE = _words(
    "config cfg conf params parameters param hparams hyperparameters hyperparams hparam args arguments settings options"
    " train training trainer trainingargs trainingarguments trainconfig trainparams fit experiment common general base"
    " learning hyper model module litmodel net network"
)
OF_OPTIMIZERS = _words(
    "optimizer optim opt optimiser optimizerparams optimizerconfig optimizerargs optimizerkwargs optimization optimcfg"
)
OF_SCHEDULES = _words("scheduler lrscheduler schedule lrschedule sched schedulerparams lr learningrate")
OF_DATA = _words("data dataset dataloader datamodule dm loader trainloader dataconfig")
CONTEXTS: Mapping[str, frozenset[str]] = {
    "optimizer": ANYWHERE | OF_OPTIMIZERS,
    "schedule": ANYWHERE | OF_OPTIMIZERS | OF_SCHEDULES,
    "data": ANYWHERE | OF_DATA,
    "training": ANYWHERE | OF_DATA,
    "loss": ANYWHERE | frozenset(("loss", "criterion", "lossfn")),
    "model": ANYWHERE | frozenset(("architecture", "arch")),
    "mlp": ANYWHERE | frozenset(("architecture", "arch", "mlp")),
    "cnn": ANYWHERE | frozenset(("architecture", "arch", "cnn")),
    "autoencoder": ANYWHERE | frozenset(("architecture", "arch", "autoencoder", "ae")),
}
OF_PARAMETERS: Mapping[str, frozenset[str]] = {
    "patience": frozenset(("earlystopping", "earlystop", "callbacks", "es")),
    "min_delta": frozenset(("earlystopping", "earlystop", "callbacks", "es")),
}


def is_context(container: str, parameter: str, group: str) -> bool:
    """Return whether a table of that name can hold a parameter of ours: `optimizer.lr`, but not `generator.lr`."""
    name = canonical(container)
    return name in CONTEXTS.get(group, ANYWHERE) or name in OF_PARAMETERS.get(parameter, ())


def find_aliases(name: str, known: Container[str]) -> tuple[str, ...]:
    """Return the parameters among `known` that another tool's name can mean, the likeliest first."""
    return tuple(ours for ours in PARAMETER_ALIASES.get(canonical(name), ()) if ours in known)


# By our parameter and the canonical form of their value.
VALUE_ALIASES: Mapping[str, Mapping[str, str]] = {
    "optimizer": {
        "stochasticgradientdescent": "sgd",
        "gd": "sgd",
        "momentumgd": "momentum",
        "sgdmomentum": "momentum",
        "sgdwithmomentum": "momentum",
        "nag": "nesterov",
        "sgdnesterov": "nesterov",
        "nesterovacceleratedgradient": "nesterov",
        "adamwschedulefree": "schedule_free_adamw",
        "schedulefreeadam": "schedule_free_adamw",
        "adamwsf": "schedule_free_adamw",
    },
    "activation": {
        "logistic": "sigmoid",
        "swish": "silu",
        "lrelu": "leaky_relu",
        "hyperbolictangent": "tanh",
    },
    "init": {
        "glorot": "xavier",
        "glorotuniform": "xavier",
        "xavieruniform": "xavier",
        "he": "kaiming",
        "heuniform": "kaiming",
        "kaiminguniform": "kaiming",
        "random": "normal",
        "randomnormal": "normal",
    },
    "schedule": {
        "none": "constant",
        "fixed": "constant",
        "null": "constant",
        "cosineannealinglr": "cosine",
        "cosineannealing": "cosine",
        "cosinedecay": "cosine",
        "cosinelr": "cosine",
        "lineardecay": "linear",
        "onecyclelr": "one_cycle",
        "steplr": "step",
        "exponentiallr": "exponential",
        "reducelronplateau": "reduce_on_plateau",
        "plateau": "reduce_on_plateau",
        "polynomiallr": "polynomial",
        "poly": "polynomial",
        "cosineannealingwarmrestarts": "cosine_restarts",
        "cosinewithrestarts": "cosine_restarts",
    },
    "loss": {
        "crossentropyloss": "cross_entropy",
        "ce": "cross_entropy",
        "categoricalcrossentropy": "cross_entropy",
        "sparsecategoricalcrossentropy": "cross_entropy",
        "mseloss": "mse",
        "meansquarederror": "mse",
        "squarederror": "mse",
        "l1": "mae",
        "l1loss": "mae",
        "meanabsoluteerror": "mae",
        "huberloss": "huber",
        "smoothl1": "huber",  # the same up to a factor, where its beta is 1
        "smoothl1loss": "huber",
        "bce": "binary_cross_entropy",
        "binarycrossentropy": "binary_cross_entropy",
        "bcewithlogitsloss": "binary_cross_entropy",
    },
    "model": {
        "dense": "mlp",
        "fullyconnected": "mlp",
        "fcnn": "mlp",
        "ffnn": "mlp",
        "fc": "mlp",
        "multilayerperceptron": "mlp",
        "feedforward": "mlp",
        "convnet": "cnn",
        "ae": "autoencoder",
    },
    "precision": {"fp32": "float32", "32": "float32", "bf16": "bfloat16", "fp16": "float16", "16": "float16"},
}


def find_value_alias(parameter: str, value: str) -> str | None:
    """Return our name for another tool's value of a parameter of ours, or None."""
    return VALUE_ALIASES.get(parameter, {}).get(canonical(value.rpartition(".")[2]))


# By the canonical form of their name. All are of the validation set: a study never chooses by test data.
METRIC_ALIASES: Mapping[str, str] = {
    "accuracy": "val_accuracy",
    "acc": "val_accuracy",
    "valacc": "val_accuracy",
    "validacc": "val_accuracy",
    "validaccuracy": "val_accuracy",
    "validationacc": "val_accuracy",
    "validationaccuracy": "val_accuracy",
    "accval": "val_accuracy",
    "accuracyval": "val_accuracy",
    "loss": "val_loss",
    "validloss": "val_loss",
    "validationloss": "val_loss",
    "lossval": "val_loss",
    "r2": "val_r2",
    "f1": "val_f1_macro",
    "valf1": "val_f1_macro",
    "f1score": "val_f1_macro",
    "valf1score": "val_f1_macro",
    "validationf1": "val_f1_macro",
    "auc": "val_roc_auc",
    "valauc": "val_roc_auc",
    "rocauc": "val_roc_auc",
    "valauroc": "val_roc_auc",
    "mae": "val_mae",
    "rmse": "val_rmse",
}

DATASET_ALIASES: Mapping[str, str] = {
    "fashionmnist": "fashion_mnist",
    "mnist": "mnist",
    "cifar10": "cifar10",
    "cifar100": "cifar100",
}
