"""How time to the first token, decoding and memory grow, axis by axis, with grip-edge's int8 bundles.

    python -m benchmarks.scaling /tmp/scaling
    python -m benchmarks.scaling /tmp/scaling --prepare-only      # write and export the models
    python -m benchmarks.scaling /tmp/scaling --minutes 5         # measure for five minutes; the same command goes on

The folder gets the models (random weights, the yardstick of ``benchmarks.peers`` and its relatives), every measurement,
and the report. What is there already is not made again.

    models      the yardstick, its relatives of other image sides and other sizes; their bundles
    axes        the points of each axis, and what is fitted along it
    worker      the process that measures one point
    rounds      points taking turns; turns that others disturbed are taken again
    growth      polynomials no steeper than the measurements show
    report, plot    tables, sentences and a picture
"""
