"""The networks of a LLaVA model in plain PyTorch, written to be exported.

Each equals transformers' module of the same weights. Parameter names are those of the checkpoint, so that no table
of names is needed. Decoder and selectors take batch 1, towers a batch of tiles. Not here: training, sampling, loading
of weights.
"""
