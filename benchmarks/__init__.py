"""Programs that measure: each file is one command, and the folder ``peers`` compares with other runtimes."""
