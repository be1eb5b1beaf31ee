"""The page /compare: two features, or the features of two stores."""
