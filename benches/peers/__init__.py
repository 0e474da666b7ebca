"""Side by side with PyTorch, JAX and scikit-learn: `python -m benches.peers`."""
