"""What each deployment target can run, and the rewriting that brings a traced graph to it.

``table`` holds the targets as data, ``lowering`` chooses the passes, ``check`` proves the result. One pass per file.
"""
