"""TPRL (2603.13394): token pruning as a sequential decision, learnt from demonstrations and then by PPO.

Its published code cannot be run, so this is a re-implementation from the abstract and from what that code means to do,
with its mistakes left out: demonstrations come from a real ranking and not from chance, probability ratios include
the discount of each step, states keep their shape when tokens are dropped, and entropy counts. What is ours beyond
that is said where it stands; above all, a target number of tokens is part of the state, so that one policy serves
every budget and the same ``select.onnx`` as GRIP's.
"""
