"""Proxies: scores of an untrained network that stand in for its accuracy, higher is better; one proxy a file.

A proxy is `NAME(network, images_NCHW, labels_N, *, rng)`: a function of the network as it was built, of a batch and of
a generator, which leaves all of them but the generator as they were.
"""
