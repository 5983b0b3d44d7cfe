"""What jobs of several processes need: to start, to agree, to stop together, to notice a hang."""
