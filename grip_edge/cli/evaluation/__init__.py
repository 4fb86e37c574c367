"""The parts of ``grip-edge evaluate`` that bring the stages together: PyTorch's answers, the runtime's, and latency."""
