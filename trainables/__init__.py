"""The science: what one stage computes. Knows torch; knows nothing of ddray, Ray, MLflow or the command line.

Map, in the order of the flow:

    configs.py    what a stage is asked to do: frozen models, no torch
    methods.py    which distillation methods exist and which axes each uses; no torch
    attacks.py    which attacks on robustness exist, their settings and budgets; no torch
    networks.py   which networks exist, and what the options in a name mean; no torch
    protocols.py  the named training recipes, each with its source; no torch
    published.py  the table of published settings, each row with its source; no torch
    presets.py    which row applies to (method, data set, ipc), or is the nearest; no torch
    context.py    what a stage is given: device, folders, progress, checkpoints; no torch
    files.py      names of the files of payloads, and readers of them; no torch
    payloads.py   what a stage hands on: DistilledSet, TrainedModel, AttackResult, Metrics, ...
    data/         data sets in canonical order, origins, the DSA augmentation
    models/       ConvNet3, ResNet18, VGG16
    distill/      one file per method
    experts.py    train the networks whose trajectories MTT matches
    train.py      train one network on one set, or several at once that differ in the seed
    evaluate/     accuracy, fairness and membership from stored logits; robustness/ from models, embedding.py from sets
    external/     sets and models from elsewhere, read without running code
    stages.py     stage kind -> function

A stage is not Ray Tune's ``Trainable``; the class that Tune sees lives in ``ddray/run/tune.py``.
This file imports nothing, so that the planner can read ``configs`` without loading torch.
"""
