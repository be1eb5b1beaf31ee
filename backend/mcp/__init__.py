"""`saevx mcp`: the reads of the API, search and steering as tools of the Model Context Protocol."""
