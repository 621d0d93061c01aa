"""The monitor's verdicts, what people said of them, and how often they were right."""
