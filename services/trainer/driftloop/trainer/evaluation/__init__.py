"""What is measured of a model beside its loss, each kind in a module of its own.

All of it on the answers of the served graph, on the frozen hold-out, candidate beside
champion, with a bounded number of rows and repeats. Nothing here decides: the
registry's gate does.
"""
