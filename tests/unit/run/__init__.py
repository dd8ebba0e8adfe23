"""Tests of single parts, in this process. The files mirror the package."""
