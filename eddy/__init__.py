"""Recurrent recommendations on event streams. `models`, `stream` and `serving` are links to the folders at
the top of the repository; from wherever they are imported, their names begin with `eddy.`.
"""
