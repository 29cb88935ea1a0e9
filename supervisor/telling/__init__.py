"""Words for people: the console and the story of a run."""
