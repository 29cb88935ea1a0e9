"""The supervisor's edges: clocks, signals, streams, and writes that must not hold up the loop."""
