"""Between the processes of a run: messages, the heartbeat, the mirror. No policy."""
