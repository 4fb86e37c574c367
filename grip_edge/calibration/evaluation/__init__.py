"""Accuracy of token selections on questions with known answers, with intervals, and what a report makes of it.

    cases        which policy, budget and training run an answer belongs to
    contestants  from the names that a user writes to policies
    answering    answers of the frozen model in PyTorch, batched over policies and budgets
    records      answers on disk, image by image; a run that was killed continues (``collecting`` is the loop)
    scoring      exact match and the rules of VQA, TextVQA, POPE, ScienceQA and GQA
    intervals    bootstrap over images and training runs
    tables       from records to the rows of a report
    report       the rows, and their JSON;  report_formats, plots, pareto: for people

Not here: answers through ONNX Runtime and latency, which need the runtime (``grip_edge.cli``).
"""
