"""The user's pairs, in every form that is read: sources.py says what DATA can be, json_files.py, tars.py and
table_files.py read its records, survey.py finds out which field is what, rows.py makes rows, images.py opens an image.

A row that cannot be used is rejected with its reason (rejections.py), never a crash and never silent. Pixels are read
in the pass; here only the rows are.
"""
