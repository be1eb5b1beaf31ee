"""The server: reads finished stores, and asks the offline stage's own code for anything live."""
