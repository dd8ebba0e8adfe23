"""What is measured, against whom: one command a table. See README.md here."""
