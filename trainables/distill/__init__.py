"""The distillation methods, one file each; none imports another. Imports nothing.

What several of them share:

    context.py          what a method is given: seeds, starts, networks, batches, progress, the payload at the end
    matching.py         matching gradients class by class, and how the images of a step are split
    distributions.py    matching mean features class by class
    representatives.py  real images that stand for their class
    unroll.py           derivatives through the steps of a student's training

The methods:

    coresets.py         random, herding, kmeans: images that are chosen
    dm.py               distribution matching
    fairdd.py           distribution matching of the means of groups
    dpdm.py             distribution matching of noisy means, with a guarantee of differential privacy
    datadam.py          distribution matching of attention maps
    dsa.py              gradient matching, with augmentation (DSA) and without (DC)
    idm.py              distribution matching by trained networks, of images that hold several
    mtt.py              trajectory matching
    ncfm.py             matching characteristic functions
    rded.py             parts of real images that a trained network finds easiest
    idc.py              gradient matching of images that hold several
"""
