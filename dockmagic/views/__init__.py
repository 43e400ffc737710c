"""Pictures of what the engine and the kernel did: one module per picture.

`parts` is what every picture is made of (tables, facts, notes, folds), each with a text and an HTML form made
from the same rows. `view` makes a bundle of them for Jupyter, and keeps a picture up to date where it is
live. The pictures: `tables`, `layers`, `namespaces`, `ports`, `resources`, `progress`, `cards`.
"""
