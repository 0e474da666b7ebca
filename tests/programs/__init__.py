"""Random valid programs: graphs of operations over random shapes, views and element types, compared with NumPy.

    python -m tests.programs --count 10000

Invariant: NumPy computes each step from the very numbers that treadle had, so errors do not add up and tolerances are those
of one operation; gradients are compared with differences of the whole program in NumPy.
"""
