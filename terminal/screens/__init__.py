"""What commands print at their end: tables, and lines where there is no terminal; a file for each kind of result."""
