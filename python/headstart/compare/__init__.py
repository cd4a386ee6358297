"""One engine for every experiment: ways times seeds, samples in parts, scores, files of rows, tables.

`headstart demo` (`demo.py`), `recipe` (`recipe.py`) and `bench quality` (`quality.py`) say what is compared; `run.py`
draws and scores it. A solver to compare with is a row of `way.METHODS`.
"""
