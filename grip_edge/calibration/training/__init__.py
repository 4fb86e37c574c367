"""What both methods of training share: settings, batches, the cache, validation, and the run from start to end."""
