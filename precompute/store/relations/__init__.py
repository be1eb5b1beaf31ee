"""How features relate: the colours and areas of the map, and families that share samples."""
