"""`eddy demo`: the whole system on one machine, as a newcomer sees it. The order of events is in runner.py."""
