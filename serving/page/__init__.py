"""The live page: its files (`static/`), and how they are answered."""
