"""What leaves the machine: the model card of a finished run, its export as a folder, and the push to the Hub."""
