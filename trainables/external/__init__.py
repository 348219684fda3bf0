"""Files that ddray did not make: distilled sets, networks' parameters, lists of members. Nothing in them is ever run.

What a file cannot say (space, normalisation, architecture, order of indices) comes from the caller; nothing is guessed.
N images, C channels, H = W pixels, K classes; labels in files are the data set's own numbers.
"""
