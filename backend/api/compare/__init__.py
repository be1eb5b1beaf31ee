"""Two features beside each other, and the features of two stores."""
