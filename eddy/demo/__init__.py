"""`eddy demo`: the whole system on one machine, as a newcomer sees it; flow.py says in what order."""
