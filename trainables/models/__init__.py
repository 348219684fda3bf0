"""The networks. Imports nothing.

network.py  what every network offers, its normalisation layers, and how one is built
second_order.py  instance norm with its second derivatives written out
convnet.py  ConvNet3, the network of the DC family
resnet.py   ResNet18
vgg.py      VGG16
packed.py   several networks of one kind as one
"""
