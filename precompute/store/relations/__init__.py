"""How features relate: pairs that share samples (`feature_pairs`, `matrix`, `pair_samples`), the nearest features of
another store (`counterparts`, `shared_samples`), and the colours and areas of the map (`map_colours`)."""
