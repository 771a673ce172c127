"""A look inside the recurrent cell: hidden states through time, and what reaches how far."""
