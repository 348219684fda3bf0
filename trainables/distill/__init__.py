"""The distillation methods, one file each; none imports another. Imports nothing.

context.py   what a method is given: seeds, starts, networks, batches, progress, the payload at the end
matching.py  matching gradients class by class, and how the images of a step are split
unroll.py    derivatives through the steps of a student's training
coresets.py  random, herding, kmeans: images that are chosen
dm.py        distribution matching
dsa.py       gradient matching, with (DSA) and without (DC) augmentation
idc.py       gradient matching of images that hold several
mtt.py       trajectory matching
"""
