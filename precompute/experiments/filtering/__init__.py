"""Does a model learn more from pairs that a score keeps? (`saevx experiment filtering`)"""
