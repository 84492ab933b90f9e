from .annotations import read_geojson, write_geojson
from .case import Case, create_case, find_cases
from .case_file import CaseFile, PetEntry, SlideEntry
from .pet import open_pet
from .slide import Slide, View, open_slide

__all__ = [
    "Case",
    "CaseFile",
    "PetEntry",
    "Slide",
    "SlideEntry",
    "View",
    "create_case",
    "find_cases",
    "open_pet",
    "open_slide",
    "read_geojson",
    "write_geojson",
]
