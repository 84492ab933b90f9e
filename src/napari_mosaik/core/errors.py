"""Errors that a user can act on: each names the object, the value and the remedy."""

from __future__ import annotations


class MosaikError(Exception):
    """Base of every error whose message is written for the user.

    The command line prints the message on one line and exits with 2; the window shows it in a
    banner.  Any other exception is an internal error (exit code 1).
    """


class InputError(MosaikError):
    """A file, value or setting given by the user cannot be used."""


class MissingPixelSize(InputError):
    """A slide states no pixel size, or an implausible one."""


class SeveralPages(InputError):
    """A file holds several pictures of which one must be chosen."""

    def __init__(self, message: str, pages: int = 0) -> None:
        super().__init__(message)
        self.pages = pages


class FrameMismatch(InputError):
    """Two transforms or rasters of different frames were combined."""


class CaseLocked(MosaikError):
    """Another process is writing to the case."""


class CorruptArtifact(MosaikError):
    """A stored result is damaged; the message names the step that recomputes it."""


class Blocked(MosaikError):
    """A step cannot run because an input is missing."""


class SolverError(MosaikError):
    """A numerical solver did not converge; the message says which settings to check."""


class Cancelled(MosaikError):
    """The user cancelled the computation; nothing was stored."""


def lacks_memory(error: BaseException | None) -> bool:
    """Whether memory was refused, also to a library that was loaded or a thread that began."""
    words = ("failed to map segment", "cannot allocate memory", "can't start new thread")
    while error is not None:
        if isinstance(error, MemoryError) or any(word in str(error).lower() for word in words):
            return True
        error = error.__cause__ or error.__context__
    return False


def require_memory(error: BaseException) -> None:
    """Raise `MemoryError` if memory was refused: that says nothing about the file being read."""
    if lacks_memory(error):
        raise MemoryError(str(error)) from error
