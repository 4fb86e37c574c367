"""One model, the same work, every runtime: grip-edge beside its peers, measured in one run on one machine.

    python -m benchmarks.peers /tmp/peers
    python -m benchmarks.peers /tmp/peers --only grip-edge,openvino-genai --rounds 3
    python -m benchmarks.peers /tmp/peers --prepare-only

The folder gets the yardstick model (random weights), an environment and the conversions of each peer, the finished
rounds, and the report. What is there already is not made again; a peer that cannot be installed, converted or run is a
line of the report with the reason.

    yardstick, shape    the model and what it costs in operations and bytes
    peers/              per peer: its environment (pinned), conversions, contestants; in this interpreter
    workers/            per peer: the process that answers requests; in the peer's interpreter, without grip-edge
    protocol            the lines of JSON between the two
    preparing, rounds   environments and conversions; processes taking turns
    summary, bars, report, plot    medians and spread; the aims, held or missed; tables and a picture
"""
