"""Registration of sections and PET to one another, and its uncertainty.

The modules that need scipy are loaded on first use, so importing this folder is light.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
