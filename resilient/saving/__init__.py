"""From a state in memory to a checkpoint: inline, on a thread, or in the saver process. No MindSpore."""
