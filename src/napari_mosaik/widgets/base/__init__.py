"""Controls, background worker and case controller, used by all parts of the window."""
