"""Errors that a user can act on: each names the thing, the value and what to do."""

from __future__ import annotations


class MosaikError(Exception):
    """Base of every error whose message is written for the user.

    The command line prints the message on one line and exits with 2; the window shows it in a
    banner.  Anything else that is raised is a fault of the program (exit code 1).
    """


class InputError(MosaikError):
    """A file, value or parameter given by the user cannot be used."""


class MissingPixelSize(InputError):
    """A slide does not say how large its pixels are, or says something absurd."""


class FrameMismatch(InputError):
    """Two transforms or rasters of different frames were combined."""


class CaseLocked(MosaikError):
    """Another process is writing to the case."""


class CorruptArtifact(MosaikError):
    """A stored result is damaged; the message says which step makes it anew."""


class Blocked(MosaikError):
    """A step cannot run because something that it needs is missing."""


class SolverError(MosaikError):
    """A numerical solver did not converge; the message says which settings to check."""


class Cancelled(MosaikError):
    """The user stopped the work; nothing was committed."""
