"""Charts for a terminal: plain functions that turn numbers into characters, and thin widgets that show them.

Own code because a ready-made chart repaints every row for every new point (4-16 KB each); these write only the cells
that changed.
"""
