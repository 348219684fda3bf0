"""The science: what one stage computes. Knows torch; knows nothing of ddray, Ray, MLflow or the command line.

The map: a file uses only what is named above it.

    networks.py   which networks exist, and what the options in a name mean; no torch
    attacks.py    which attacks on robustness and on membership exist, their settings and costs; no torch
    configs.py    what a stage is asked to do: frozen models, one per stage kind; no torch
    protocols.py  the named training recipes, each with its source; no torch
    registry.py   how a distillation method is declared, here and in other packages; no torch
    methods.py    the methods that come with ddray, each with its settings; no torch
    published.py  the table of published settings, each row with its source; no torch
    presets.py    which row applies to (method, data set, ipc), or is the nearest; no torch
    teachers.py   which networks label the images of a set, and how they are trained; no torch
    guarantee.py  differential privacy: what noise guarantees; no torch
    seeds.py      every random number: seeds derived from names and numbers
    device.py     the process a stage runs in: threads, memory, precision
    context.py    what a stage is given: device, folders, progress, checkpoints; no torch
    files.py      names of the files of payloads, and readers of them; no torch
    data/         data sets in canonical order, origins, augmentation
    models/       ConvNet3, ResNet18, VGG16
    labels.py     hard and soft labels of a distilled set, and the losses that networks learn them with
    payloads.py   what a stage hands on: DistilledSet, TrainedModel, AttackResult, Metrics, ...
    optimise.py   stochastic gradient descent: the one loop, the state it keeps, the gradient of a step
    train.py      train one network on one set, or several at once that differ in the seed
    experts.py    train the networks whose trajectories MTT matches
    distill/      the distillation methods
    external/     sets and models from elsewhere, read without running code
    evaluate/     accuracy, fairness and membership from stored logits; robustness from models, embeddings from sets
    stages.py     stage kind -> function
    dry_run.py    what a step takes of a card, without one
    testing.py    what every method promises, to be checked by whoever adds one

A stage is not Ray Tune's ``Trainable``; the class that Tune sees lives in ``ddray/run/tune.py``.
This file imports nothing, so that the planner can read ``configs`` without loading torch.
"""
