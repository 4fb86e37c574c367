"""What runs in a peer's environment: the standard library, numpy, Pillow and the peer; grip-edge only in its own."""
