"""The DenseNet tissue classifier."""
