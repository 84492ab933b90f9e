"""The pipeline: its steps, how they run on a case, recipes, cohorts and other use cases."""
