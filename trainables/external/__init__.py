"""Files that ddray did not make: distilled sets, models, lists of members. Nothing in them is ever run.

    content.py   what a file holds, whatever kind it is, and the checks that all kinds share
    pictures.py  distilled sets as folders of pictures
    sets.py      distilled sets
    models.py    parameters of networks, as a trained model with its outputs
    members.py   which training images a set or a model was made of

What a file cannot say (space, normalisation, architecture, order of indices) comes from the caller; nothing is guessed.
N images, C channels, H = W pixels, K classes; labels in files are the data set's own numbers.
"""
