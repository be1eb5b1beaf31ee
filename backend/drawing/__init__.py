"""What pages are drawn with: the Jinja environment, figures, texts, heat, charts and repeated fragments."""
