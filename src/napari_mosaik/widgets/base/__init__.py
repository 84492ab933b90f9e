"""Controls, worker and case controller that every room of the window uses."""
