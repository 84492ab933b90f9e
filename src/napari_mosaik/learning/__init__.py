"""Training of networks, whatever the network: epochs, checkpoints, best weights, devices.

Everything here imports torch; import its modules where a network is trained or applied.
"""
