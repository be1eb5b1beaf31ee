"""The store: a folder that never changes. `schema` names its tables, `writer` makes it, `reader` opens it."""
