"""Lists for many users at once, for mail and push: `eddy recommend`."""
