"""Reports of a run for others to read: known failures, a badge, JUnit for CI, and one page of HTML."""
