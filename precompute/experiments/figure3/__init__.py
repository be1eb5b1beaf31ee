"""Quality of an SAE-V beside SAEs of text, as in the paper's Figure 3 (`saevx experiment figure3`)."""
