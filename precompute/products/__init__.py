"""Products of which only the largest values are wanted: computed in low precision, decided and valued in float32."""
