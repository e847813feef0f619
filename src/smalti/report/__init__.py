"""Evaluation records and their comparison, HTML reports, charts, contact sheets and animations."""
