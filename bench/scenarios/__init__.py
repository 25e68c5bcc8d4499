"""The scenarios of `make bench`, one file each: its docstring says what is measured, `play` measures it."""
