"""Where a feature fires (`listed`), and where it and its name part ways (`counter`)."""
