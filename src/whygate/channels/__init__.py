"""How people hear that something waits for them, outside of the console."""
