"""How each packaged table is made; `conversion/build_resources.py` writes them all."""
