"""The refresh: a new version from the newest events, judged beside the live one before it may take over."""
