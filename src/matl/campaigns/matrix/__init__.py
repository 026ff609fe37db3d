"""Attacks against rules: every attack at every strength, under every rule, on many seeds."""

from matl.campaigns.matrix.design import FILE, PRESETS, Matrix, read_matrix, resume_matrix
from matl.campaigns.matrix.journal import Journal
from matl.campaigns.matrix.page import write_matrix_report
from matl.campaigns.matrix.run import run_matrix

__all__ = ["FILE", "PRESETS", "Journal", "Matrix", "read_matrix", "resume_matrix", "run_matrix", "write_matrix_report"]
