"""The runner of an exported model: ONNX Runtime, numpy and the standard library.

It is copied into each exported folder as ``driftloop_edge``, where there is no other
module of driftloop: so it imports its own modules by their place, and nothing else of
ours. What it says and answers is what the scorer says and answers; the tests compare
the two.
"""

VERSION = "1"
