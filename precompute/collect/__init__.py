"""The one pass: residual streams in, exact mergeable accumulators and events out."""
