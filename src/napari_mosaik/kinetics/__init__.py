"""Antibody kinetics: the patient's curves, delivery by each tile's vessels, identifiability.

Names are loaded when they are first used (``__init__.pyi`` lists them), so importing this folder is
light.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
