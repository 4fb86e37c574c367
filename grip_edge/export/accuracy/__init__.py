"""What fewer bits cost, measured on data, and what is done about it: from a bundle in floats to a quantised one.

    float_bundle   the graphs of a bundle as an export has them before the precision passes
    questions      what the model is asked
    piecewise      a graph run over many inputs, a few weights in memory at a time, with a look at its inner values
    forward        all questions through the four graphs
    groups         linear layers that read the same values, and where those can be rescaled
    observe        what the values are like: ranges, overflow in fp16, error per layer, best rescaling
    decisions      what that leads to: layers in order of error, rescalings, layers that fp16 does not hold
    candidate      the graphs written with given choices
    cost           a quantised model beside the float one: KL, agreement, accuracy
    search         which layers stay in more bits
    calibrate      all of it, from bundle to bundle

Nothing holds a model: weights are read, used and dropped, as in an export.
"""
