"""The networks of a LLaVA model in plain PyTorch, written to be exported.

Each equals transformers' module of the same weights. Parameter names are those of the checkpoint, so that no table
of names is needed. All take batch 1. Not here: training, sampling, loading of weights.
"""
