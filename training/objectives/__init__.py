"""What a run minimises: losses and their regularisers, on one micro-batch at a time."""
