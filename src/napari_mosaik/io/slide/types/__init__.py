"""The interface of slides: records and protocols, without reading."""
