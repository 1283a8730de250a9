"""Experiments as data: grids of runs that can be stopped and taken up, and the reports made of them."""
