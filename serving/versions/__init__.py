"""Model versions: what the registry says of them, which are live, and how they do."""
