"""The pages, a module or a folder for each address: `features.py` answers /features. What a new page needs:
docs/architecture.md, *Add a page*."""
