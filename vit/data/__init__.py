"""Labelled pictures in, batches out: what a data set is, how a picture is read, in which order and how augmented."""
