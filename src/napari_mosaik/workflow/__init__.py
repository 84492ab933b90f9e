"""Orders of operations: the steps of the main job, running them, recipes and cohorts."""
