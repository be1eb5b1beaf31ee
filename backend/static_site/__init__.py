"""A store as a site of files, which any web server can show: the pages that need no model."""
