"""The page of an answer: what carried each of its words, and the test of that."""
