"""``grip::BudgetSelect``: scoring's last step as one operator, from scores and features to the kept tokens.

``native/`` holds the CUDA kernels and the TensorRT plugin in C++; here are the same algorithm in numpy
(``algorithm``), the plugin in Python (``twin``) and what both promise (``interface``).
"""
