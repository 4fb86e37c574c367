"""The command line. It alone knows all stages; every command imports its stage when it runs."""
