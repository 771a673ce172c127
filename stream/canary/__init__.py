"""Canaries: versions that a share of the users has until ranks of their events say what becomes of them."""
