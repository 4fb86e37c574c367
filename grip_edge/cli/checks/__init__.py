"""The checks of ``grip-edge doctor``: each one does what it speaks of, and says what came of it.

    device     what ``infer`` needs: packages that do their work on a small example
    backends   what else can run a bundle: each one computes something, or says why not
    host       what export, training and reports need, tried in processes of their own
    machine    what can be read of the machine itself

``groups`` lists them; ``finding`` is what each one gives.
"""
