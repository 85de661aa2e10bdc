"""What people look at: figures, widgets and the report."""
