"""What the commands for single experiments are made of: settings, a run and its files, figures, tables, the log."""
