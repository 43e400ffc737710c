"""Container names: which are allowed, and a friendly one where the user gave none.

Docker makes names of an adjective and a surname; so do we, from word lists of our own.
"""

import random
import re

from dockmagic_runtime.errors import InvalidParameter

_ALLOWED = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_NAME = re.compile(_ALLOWED + "+")

_ADJECTIVES = """
agile airy amber bold brave bright brisk calm candid cheery civil clever cosmic cozy crisp curious daring
deft eager earnest easy elegant fair fancy fearless fluent fond frank fresh gentle glad golden graceful
happy hardy hearty honest humble jolly keen kind lively loyal lucid lucky mellow merry mighty modest neat
nimble noble patient placid plucky polite proud quick quiet radiant ready robust rosy serene sharp silver
sincere smart snug sober solid spry steady sunny swift tender tidy tranquil trusty upbeat vivid warm wise
witty worthy zesty
"""
_SURNAMES = """
abel agnesi allen archimedes babbage backus banach bell bernoulli bohr boole borg cantor carson cauchy cerf
church clarke codd cori cray curie darwin dijkstra dirac easley elion erdos euclid euler faraday fermat
fermi feynman floyd fourier franklin galileo galois gauss germain goedel goldberg hamilton hamming hertz
hilbert hoare hopper huygens hypatia jackson johnson joliot kalman kepler knuth kovalevskaya lagrange lamarr
lamport laplace leibniz liskov lovelace maxwell mccarthy mendel milner mirzakhani morse nash naur neumann
newton noether noyce pascal pasteur perlman planck poincare ramanujan ritchie rosalind rubin shannon sinoussi
stonebraker tesla thompson torvalds turing volta wescoff wiles wilson wirth wozniak yalow
"""


def generate() -> str:
    """A random name such as `calm_hopper`; the caller checks that it is free."""
    return f"{random.choice(_ADJECTIVES.split())}_{random.choice(_SURNAMES.split())}"


def check(name: str) -> str:
    """`name` without Docker's leading slash; raises InvalidParameter if it may not be used."""
    name = name.removeprefix("/")
    if not _NAME.fullmatch(name):
        raise InvalidParameter(f"Invalid container name ({name}), only {_ALLOWED} are allowed")
    return name
