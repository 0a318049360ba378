"""From a chunk received to its results acknowledged downstream."""
