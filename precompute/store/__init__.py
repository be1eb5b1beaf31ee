"""The store: a folder that never changes. `reader.Store` opens it, `schema` names its tables, `making` writes it."""
