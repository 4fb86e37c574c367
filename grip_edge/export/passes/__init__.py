"""Rewriting of traced graphs, one pass per file, each with the conditions that it needs and those that it leaves.

Passes see weights as descriptions (``weights``) and replace them by other descriptions; no weight is in memory.
``plan`` says which passes a graph gets.
"""
