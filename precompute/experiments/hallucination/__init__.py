"""`saevx experiment hallucination`: which features are on when a model sees things that are not there."""
